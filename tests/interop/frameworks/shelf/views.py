# mypy: ignore-errors
# pyright: basic, reportArgumentType=false, reportMissingImports=false, reportMissingModuleSource=false
import hashlib

from django import forms
from django.core.handlers.asgi import ASGIRequest
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.middleware.csrf import get_token
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.views.decorators.csrf import csrf_exempt

from tests.interop.frameworks.shelf.models import Document


class DocumentForm(forms.ModelForm):
    class Meta:
        model = Document
        fields = ("title", "file")


def upload(request):
    """A form for a document, and the document that is made of it."""
    form = DocumentForm(request.POST or None, request.FILES or None)
    if form.is_valid():
        return redirect("document", number=form.save().pk)
    token = get_token(request)
    hidden = f'<input type="hidden" name="csrfmiddlewaretoken" value="{token}">'
    page = f'<form method="post" enctype="multipart/form-data">{hidden}{form}<button>Keep</button></form>'
    return HttpResponse(page, status=400 if form.errors else 200)


def document(request, number):
    found = get_object_or_404(Document, pk=number)
    return FileResponse(found.file.open("rb"), as_attachment=True, filename=f"{found.title}.bin")


def numbers(request):
    """An answer in pieces, made as each interface has it."""

    async def awaited():
        for number in range(1000):
            yield f"{number}\n"

    pieces = awaited() if isinstance(request, ASGIRequest) else (f"{number}\n" for number in range(1000))
    return StreamingHttpResponse(pieces, content_type="text/plain")


def where(request, word):
    return JsonResponse(
        {
            "word": word,
            "query": dict(request.GET.lists()),
            "method": request.method,
            "path": request.path,
            "path_info": request.path_info,
            "script": request.META.get("SCRIPT_NAME"),
            "reversed": reverse("where", args=["é"]),
            "url": request.build_absolute_uri(),
            "address": request.META["REMOTE_ADDR"],
            "agent": request.headers.get("User-Agent"),
        }
    )


@csrf_exempt
def digest(request):
    """What arrived of a body that is read in pieces."""
    hashed, length = hashlib.sha256(), 0
    while piece := request.read(65_536):
        hashed.update(piece)
        length += len(piece)
    return HttpResponse(f"{length} {hashed.hexdigest()}", content_type="text/plain")


def boom(request):
    raise ZeroDivisionError("a bug")
