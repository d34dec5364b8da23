from django.apps import AppConfig

from cacheadmin.signals import cache_read

from .outcomes import on_cache_read


class ShopConfig(AppConfig):
    name = "shop"
    label = "shop"
    verbose_name = "Jewelry shop"

    def ready(self):
        cache_read.connect(on_cache_read, dispatch_uid="shop.outcomes")
