"""From the bytes of a request to its checked body, JSON or a form with files.

    curl -F prompt='a red ball' -F video=@clip.mp4 http://127.0.0.1:8000/v1/score

In a form, text fields are the keys of the JSON body, and files its videos."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest

from descore.serving.problems import ServiceError, invalid
from descore.serving.schema import RequestBody, UploadedVideo
from descore.serving.service import Service

JSON, FORM = "application/json", "multipart/form-data"

_REPEATED = "videos"
"""The key of a body that holds several videos."""
_MOST_FIELDS = 100
_LONGEST_NAME = 255


@asynccontextmanager
async def read_body(request: HttpRequest, form: type[RequestBody], service: Service) -> AsyncIterator[RequestBody]:
    """The body of a request, within the server's bounds; its files are there until the block ends.

    ServiceError (request) for a body that does not fit, too_large for one beyond a bound."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().casefold()
    if kind == FORM:
        async with _form_of(request, service) as fields:
            yield _bounded(_checked(form, fields), service)
    elif kind == JSON:
        content = await request.body()
        yield _bounded(await asyncio.to_thread(_parsed, form, content), service)
    else:
        raise ServiceError("request", f"content type {kind or 'not given'}; expected {JSON} or {FORM}")


def _parsed(form: type[RequestBody], content: bytes) -> RequestBody:
    try:
        return form.model_validate_json(content)
    except ValidationError as error:
        raise invalid(error) from None


def _checked(form: type[RequestBody], fields: Mapping[str, Any]) -> RequestBody:
    try:
        return form.model_validate(fields)
    except ValidationError as error:
        raise invalid(error) from None


def _bounded(body: RequestBody, service: Service) -> RequestBody:
    if beyond := body.beyond(service.settings):
        raise ServiceError("too_large", beyond)
    return body


@asynccontextmanager
async def _form_of(request: HttpRequest, service: Service) -> AsyncIterator[dict[str, Any]]:
    """The fields of a form, with its files stored."""
    try:
        form = await request.form(max_files=service.settings.max_queue, max_fields=_MOST_FIELDS)
    except HTTPException as error:  # Starlette's, of a form that cannot be parsed
        raise ServiceError("request", f"the form cannot be read: {error.detail}") from None
    try:
        with TemporaryDirectory(dir=service.folder, ignore_cleanup_errors=True) as folder:
            yield await _stored_fields(form, Path(folder))
    finally:
        await form.close()


async def _stored_fields(form: FormData, folder: Path) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for number, (key, value) in enumerate(form.multi_items()):
        entry = await _stored_file(value, folder / str(number)) if isinstance(value, UploadFile) else value
        if key == _REPEATED:
            fields.setdefault(key, []).append(entry)
        elif key in fields:
            raise ServiceError("request", f"{key}: twice in the form")
        else:
            fields[key] = entry
    return fields


async def _stored_file(upload: UploadFile, target: Path) -> UploadedVideo:
    """A copy that another process can open."""
    await asyncio.to_thread(_copy, upload, target)
    name = PurePosixPath(upload.filename or "").name[:_LONGEST_NAME]
    return UploadedVideo(file=target, name=name or None)


def _copy(upload: UploadFile, target: Path) -> None:
    with target.open("xb") as file:
        shutil.copyfileobj(upload.file, file)


def body_schema(form: type[RequestBody], *, files: Mapping[str, str]) -> dict[str, Any]:
    """What OpenAPI says of a body. files: the keys of the form that are files, each with its description."""
    reference = {"$ref": f"#/components/schemas/{form.__name__}"}
    content: dict[str, Any] = {JSON: {"schema": reference}}
    if files:
        one = {"type": "string", "format": "binary"}
        properties = {
            key: {"description": text, **({"type": "array", "items": one} if key == _REPEATED else one)}
            for key, text in files.items()
        }
        required = form.model_json_schema()["required"]
        others = {key: value for key, value in form.model_json_schema()["properties"].items() if key not in files}
        schema = {"type": "object", "properties": {**others, **properties}, "required": required}
        content[FORM] = {"schema": schema}
    return {"requestBody": {"required": True, "content": content}}
