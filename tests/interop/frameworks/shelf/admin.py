# mypy: ignore-errors
# pyright: basic, reportMissingImports=false, reportMissingModuleSource=false
from django.contrib import admin

from tests.interop.frameworks.shelf.models import Document


@admin.register(Document)
class DocumentAdmin(admin.ModelAdmin):
    list_display = ("title", "file")
    search_fields = ("title",)
