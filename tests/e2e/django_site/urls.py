from __future__ import annotations

from django.urls import include, path, re_path

from . import views

_kinds = [
    path("class/", views.Both.as_view()),
    path("async-class/", views.AsyncClass.as_view()),
    path("page/", views.Page.as_view(extra_context={"word": "a word"})),
    path("decorated/", views.decorated),
    path("conditional/", views.conditional),
    path("hidden/", views.hidden(views.decorated)),
    path("partial/", views.partial_view, name="partial"),
    path("lambda/", views.lambda_view),
]

urlpatterns = [
    path("echo/", views.echo, name="echo"),
    re_path(r"^echo/(?:.+)$", views.echo),
    path("body/<name>/", views.body),
    path("checksum/", views.checksum),
    path("measured/", views.measured),
    path("pieces/", views.pieces),
    path("respond/<name>/", views.respond),
    path("async/respond/<name>/", views.async_respond),
    path("compressed/<name>/", views.compressed),
    path("fail/<name>/", views.fail),
    path("async/fail/<name>/", views.async_fail),
    path("kinds/<int:number>/", include((_kinds[:3], "kinds"), namespace="numbered")),
    path("kinds/", include((_kinds, "kinds"))),
    path("thread/", views.thread),
    path("async/thread/", views.async_thread),
    path("nested/", views.nested),
    path("own-thread/", views.own_thread),
    path("publish/", views.publish),
    path("name/", views.name),
    path("hold/", views.hold),
    path("hold/coroutine/", views.hold_coroutine),
    path("async/hold/", views.async_hold),
    path("query/", views.query),
    path("async/query/", views.async_query),
    path("slow-query/", views.slow_query),
    path("write/", views.write),
    path("rows/", views.rows),
    path("lock/first/", views.lock_first),
    path("lock/second/", views.lock_second),
    path("deadlock/", views.deadlock),
    path("stream/<name>/", views.stream),
    path("async/stream/<name>/", views.async_stream),
    path("file/tagged/", views.tagged_file),
    path("file/zipped/", views.zipped_file),
    path("file/<name>/", views.file),
]
