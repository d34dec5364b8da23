"""Fill an empty database with the demo's shops and logins."""

import time

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.db.models import Q

from cacheadmin.stats import recorder
from shop.models import Tenant, User
from shop.seed import seed

SHOP_PERMISSIONS = Q(
    content_type__app_label="shop",
    codename__in=[
        "change_inventoryitem",
        *(
            f"view_{model}"
            for model in ("branch", "category", "customer", "inventoryitem", "sale", "supplier", "tenant")
        ),
    ],
)
CONSOLE = Q(content_type__app_label="cacheadmin")
MANAGER_PERMISSIONS = SHOP_PERMISSIONS | CONSOLE & Q(codename__in=["view_keys", "view_values", "invalidate", "warm"])
CLERK_PERMISSIONS = SHOP_PERMISSIONS | CONSOLE & Q(codename="view_keys")


class Command(BaseCommand):
    help = "Create five shops with branches, items, sales, customers, gold rates and logins in an empty database."

    def add_arguments(self, parser):
        parser.add_argument("--scale", type=float, default=1.0, help="Size of the shops; 1 is the demo's.")
        parser.add_argument("--migrate", action="store_true", help="Make the tables first.")
        parser.add_argument("--seed", type=int, default=7, help="Seed of the random numbers.")

    def handle(self, *, scale, seed: int, migrate=False, **options):
        if scale <= 0:
            raise CommandError(f"--scale is {scale}; it must be above zero.")
        if migrate:
            call_command("migrate", verbosity=0)
        if Tenant.objects.exists():
            self.stdout.write("The database has shops already; nothing was created.")
            return
        started = time.perf_counter()
        counts = fill(scale=scale, random_seed=seed)
        recorder.reset()  # rules fired for what is only now made: nothing that charts should begin with
        self.stdout.write(
            f"Created {counts.tenants} shops, {counts.items} items, {counts.sales} sales and {counts.rates} gold rates "
            f"in {time.perf_counter() - started:.1f} s."
        )


@transaction.atomic
def fill(*, scale, random_seed):
    """Create the shops and their logins in one transaction. Returns: `shop.seed.Counts`."""
    counts = seed(scale=scale, random_seed=random_seed)
    User.objects.create(
        username="admin", password=make_password("admin"), is_staff=True, is_superuser=True, role=User.Role.OWNER
    )
    for tenant in Tenant.objects.order_by("pk"):
        # Ruby's manager may invalidate and warm; the others only look, so that both can be tried.
        is_manager = tenant.slug == "ruby"
        user = User.objects.create(
            username=tenant.slug,
            password=make_password(tenant.slug),
            tenant=tenant,
            is_staff=True,
            role=User.Role.MANAGER if is_manager else User.Role.CLERK,
        )
        wanted = MANAGER_PERMISSIONS if is_manager else CLERK_PERMISSIONS
        user.user_permissions.set(Permission.objects.filter(wanted))
    return counts
