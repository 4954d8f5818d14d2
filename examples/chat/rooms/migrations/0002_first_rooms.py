from django.contrib.auth.hashers import make_password
from django.db import migrations

ROOMS = [
    ("kitchen", "Kitchen", "What is cooking, and who does the dishes"),
    ("workshop", "Workshop", "Things that are being built, and things that are broken"),
    ("garden", "Garden", "Pictures of plants, birds and the sky"),
]


def add(apps, schema_editor):
    room, user = apps.get_model("rooms", "Room"), apps.get_model("auth", "User")
    room.objects.bulk_create([room(slug=slug, name=name, topic=topic) for slug, name, topic in ROOMS])
    user.objects.create(username="Robot", password=make_password(None))


class Migration(migrations.Migration):
    dependencies = [
        ("rooms", "0001_initial"),
        ("auth", "0012_alter_user_first_name_max_length"),
    ]

    operations = [migrations.RunPython(add, migrations.RunPython.noop)]
