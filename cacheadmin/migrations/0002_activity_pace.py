"""How fast a run goes; with a default in the database, so that processes of the version before go on writing."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("cacheadmin", "0001_initial")]

    operations = [
        migrations.AddField(
            model_name="activity",
            name="pace",
            field=models.CharField(
                blank=True, db_default="", default="", help_text="Of a run.", max_length=6, verbose_name="pace"
            ),
        ),
    ]
