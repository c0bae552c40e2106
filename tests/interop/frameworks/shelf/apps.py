# mypy: ignore-errors
# pyright: basic, reportMissingImports=false, reportMissingModuleSource=false
from django.apps import AppConfig


class Shelf(AppConfig):
    name = "tests.interop.frameworks.shelf"
    label = "shelf"
