"""A Django site: documents with files, kept by the admin, and some views of its own."""
