# mypy: ignore-errors
# pyright: basic, reportMissingImports=false, reportMissingModuleSource=false
from django.contrib import admin
from django.urls import path

from tests.interop.frameworks.shelf import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("upload/", views.upload, name="upload"),
    path("documents/<int:number>/", views.document, name="document"),
    path("numbers/", views.numbers, name="numbers"),
    path("where/<str:word>/", views.where, name="where"),
    path("digest/", views.digest, name="digest"),
    path("boom/", views.boom, name="boom"),
]
