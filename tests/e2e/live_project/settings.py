import os

SECRET_KEY = "of no use to anybody"
INSTALLED_APPS = ["channels", "django.contrib.staticfiles", "tests.e2e.live_project"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("LIVE_DATABASE", ":memory:"),
        "TEST": {"NAME": os.environ.get("LIVE_DATABASE", ":memory:")},
    }
}
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
ASGI_APPLICATION = "tests.e2e.live_project.asgi.application"
ROOT_URLCONF = "tests.e2e.live_project.urls"
STATIC_URL = "/static/"
MEDIA_URL = "/media/"
MEDIA_ROOT = os.environ.get("LIVE_MEDIA", "")
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = True
