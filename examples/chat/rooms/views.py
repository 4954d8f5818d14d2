from __future__ import annotations

from typing import Any

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.conf import settings
from django.contrib.auth import get_user_model, login, logout
from django.contrib.auth.decorators import login_required
from django.db import IntegrityError
from django.db.models import Count
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from . import pictures
from .consumers import KEY, user_group
from .forms import NameForm, RoomForm
from .models import Message, Room
from .posting import announce, save


@require_http_methods(["GET", "POST"])
def sign_in(request: HttpRequest) -> HttpResponse:
    if request.user.is_authenticated:
        return redirect("lobby")
    form = NameForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        try:
            user = get_user_model().objects.create_user(form.cleaned_data["name"])
        except IntegrityError:
            form.add_error("name", "Somebody has this name already.")
        else:
            login(request, user)
            return redirect("lobby")
    return render(request, "rooms/sign_in.html", {"form": form}, status=422 if form.errors else 200)


@require_POST
@login_required
def sign_out(request: HttpRequest) -> HttpResponse:
    """Give the name back: it has no password, so nobody could prove later that it was theirs."""
    user = request.user
    logout(request)
    async_to_sync(get_channel_layer().group_send)(user_group(user.pk), {"type": "user.signed.out"})
    user.delete()
    return redirect("sign-in")


@require_GET
@login_required
def lobby(request: HttpRequest) -> HttpResponse:
    return page(request, "rooms/lobby.html", form=RoomForm())


@require_POST
@login_required
def create_room(request: HttpRequest) -> HttpResponse:
    form = RoomForm(request.POST)
    if not form.is_valid():
        return page(request, "rooms/lobby.html", form=form, status=422)
    return redirect(form.save())


@require_GET
@login_required
def room(request: HttpRequest, slug: str) -> HttpResponse:
    found = get_object_or_404(Room, slug=slug)
    return page(request, "rooms/room.html", room=found, script={"slug": slug, "maxSize": pictures.MAX_SIZE})


@require_POST
@login_required
def upload(request: HttpRequest, slug: str) -> JsonResponse:
    """Post a picture in a room; the response is the new message."""
    found, key = get_object_or_404(Room, slug=slug), request.POST.get("key", "")
    if "picture" not in request.FILES or not KEY.fullmatch(key):
        return JsonResponse({"error": "There is no picture in this."}, status=400)
    message = Message.objects.filter(author=request.user, key=key).first()
    if message is None:
        try:
            name = pictures.keep(request.FILES["picture"])
        except pictures.UnfitPictureError as error:
            return JsonResponse({"error": str(error)}, status=422)
        message = save(found, request.user, key, picture=name)
    async_to_sync(announce)(found, message)
    return JsonResponse(message.as_dict(), status=201)


@require_GET
def picture(request: HttpRequest, name: str) -> HttpResponse:
    """A picture, for anybody who knows its name; nginx does this where it stands in front."""
    if not (matched := pictures.NAME.fullmatch(name)) or not (path := settings.MEDIA_ROOT / name).is_file():
        raise Http404
    headers = {"Cache-Control": "private, max-age=31536000, immutable", "Content-Security-Policy": "default-src 'none'"}
    return HttpResponse(path.read_bytes(), content_type=pictures.TYPES[matched[1]], headers=headers)


def page(request: HttpRequest, template: str, *, script: Any = (), status: int = 200, **context: Any) -> HttpResponse:
    """A page with the list of rooms; ``script`` is the data for its JavaScript."""
    rooms = Room.objects.annotate(here=Count("presences__user", distinct=True)).order_by("pk")
    me = {"id": request.user.pk, "name": request.user.username}
    return render(request, template, {"rooms": rooms, "script": {"me": me, **dict(script)}, **context}, status=status)
