"""The shop's pages. They call cached functions; the templates say which of them answered from the cache."""

from datetime import timedelta

from django.contrib import messages
from django.http import Http404, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from cacheadmin import cache_api_response

from . import inventory, rates, sales, selling
from .forms import InventoryForm, PriceForm, days
from .models import Customer, InventoryItem, Tenant


def find_shop(request, slug):
    """Return the tenant of a page. Somebody who is bound to one shop gets a 404 for every other."""
    shop = get_object_or_404(Tenant, slug=slug)
    bound_to = getattr(request.user, "tenant_id", None)
    if bound_to not in (None, shop.pk):
        raise Http404(f"{request.user} is bound to another shop than {shop}.")
    return shop


@require_safe
def home(request):
    """List the shops."""
    shops = [
        {"shop": shop, "card": inventory.inventory_card(shop.pk)}
        for shop in Tenant.objects.all()
        if getattr(request.user, "tenant_id", None) in (None, shop.pk)
    ]
    return render(request, "shop/home.html", {"shops": shops, "gold": rates.gold_ticker()})


@require_safe
def dashboard(request, slug):
    """Show a shop's figures, from seven cached parts."""
    shop = find_shop(request, slug)
    today = timezone.localdate()
    months = sales.sales_by_month(shop.pk)
    return render(
        request,
        "shop/dashboard.html",
        {
            "shop": shop,
            "figures": sales.dashboard_figures(shop.pk),
            "month": sales.sales_summary(shop.pk, today - timedelta(days=29), today),
            "months": months,
            "most": max((month["total"] for month in months), default=0),
            "best": sales.best_sellers(shop.pk),
            "few": inventory.low_stock(shop.pk),
            "boards": [inventory.branch_board(shop.pk, branch["id"]) for branch in inventory.branches(shop.pk)],
            "repairs": sales.repair_board(shop.pk),
            "gold": rates.gold_ticker(),
            "settings": inventory.tenant_settings(shop.pk),
        },
    )


@require_safe
def inventory_page(request, slug):
    """List a shop's items; the list is cached as data, and its rows once more as a fragment."""
    shop = find_shop(request, slug)
    wanted = InventoryForm(request.GET).arguments()
    return render(
        request,
        "shop/inventory.html",
        {
            "shop": shop,
            "wanted": wanted,
            "listing": inventory.inventory_list(shop.pk, **wanted),
            "branches": inventory.branches(shop.pk),
            "categories": inventory.category_counts(shop.pk),
        },
    )


@require_safe
def item_page(request, slug, pk):
    """Show one item, with the forms that change its price and sell it. Not cached: this is where data changes."""
    shop = find_shop(request, slug)
    item = get_object_or_404(InventoryItem.objects.select_related("branch", "category"), tenant=shop, pk=pk)
    # A counter that no cached page shows: the map watches other fields, so this drops nothing.
    InventoryItem.objects.filter(pk=pk).update(view_count=item.view_count + 1)
    return render(request, "shop/item.html", {"shop": shop, "item": item, "form": PriceForm()})


@require_safe
def report_page(request, slug):
    """Show the sales report of a range of days."""
    shop = find_shop(request, slug)
    today = timezone.localdate()
    start, end = days(request.GET, today - timedelta(days=89), today)
    report = sales.sales_report(shop.pk, start, end)
    most = max((day["total"] for day in report["days"]), default=0)
    return render(
        request, "shop/report.html", {"shop": shop, "start": start, "end": end, "report": report, "most": most}
    )


@require_safe
def customer_page(request, slug, pk):
    """Show one customer's points and purchases."""
    shop = find_shop(request, slug)
    customer = sales.customer_history(shop.pk, pk)
    if customer is None:
        raise Http404(f"{shop} has no customer {pk}.")
    return render(request, "shop/customer.html", {"shop": shop, "customer": customer})


@require_safe
def back_office(request, slug):
    """Show suppliers, prices per gram and loyalty."""
    shop = find_shop(request, slug)
    context = {
        "shop": shop,
        "suppliers": inventory.suppliers(shop.pk),
        "pricing": inventory.pricing_table(shop.pk),
        "karats": rates.GOLD_KARATS,
        "tiers": sales.loyalty_tiers(shop.pk),
        "customers": Customer.objects.filter(tenant=shop).order_by("pk")[:8],
    }
    return render(request, "shop/back_office.html", context)


@require_safe
def gold_page(request):
    """Show the gold rates, which all shops share."""
    history = rates.gold_rate_history()
    context = {
        "rates": rates.latest_gold_rates(),
        "month": rates.gold_range(days=30),
        "history": history,
        "low": min((week["low"] for week in history), default=0),
        "high": max((week["high"] for week in history), default=0),
    }
    return render(request, "shop/gold.html", context)


@require_POST
def sell_item(request, slug, pk):
    """Sell one piece."""
    shop = find_shop(request, slug)
    item = get_object_or_404(InventoryItem, tenant=shop, pk=pk)
    customer = Customer.objects.filter(tenant=shop).order_by("?").first()
    try:
        sale = selling.sell(item.pk, customer=customer)
    except selling.SoldOut as error:
        messages.error(request, str(error))
    else:
        messages.success(request, f"Sold one {item.name} for {sale.total} {shop.currency}, receipt {sale.number}.")
    return redirect("item", slug, pk)


@require_POST
def set_price(request, slug, pk):
    """Change an item's price."""
    shop = find_shop(request, slug)
    item = get_object_or_404(InventoryItem.objects.select_related("branch", "category"), tenant=shop, pk=pk)
    form = PriceForm(request.POST)
    if not form.is_valid():
        return render(request, "shop/item.html", {"shop": shop, "item": item, "form": form}, status=422)
    selling.change_price(item, form.cleaned_data["price"])
    messages.success(request, f"{item.name} costs {item.price} {shop.currency} now. Open the inventory list to see it.")
    return redirect("item", slug, pk)


@require_POST
def restock_item(request, slug, pk):
    """Put a dozen pieces back."""
    shop = find_shop(request, slug)
    item = get_object_or_404(InventoryItem, tenant=shop, pk=pk)
    selling.restock(item)
    messages.success(request, f"{item.name}: {item.quantity} pieces on the shelf.")
    return redirect("item", slug, pk)


@require_POST
def move_market(request):
    """Add a gold rate."""
    rate = selling.move_market()
    messages.success(request, f"Pure gold costs {rate.price_per_gram:.2f} USD a gram now, in every shop.")
    return redirect("gold")


@cache_api_response(timeout=180, key_prefix="product_list", vary_on_user=False, x_cache=True)
def products_api(request, slug):
    """Return a page of products as JSON, with X-Cache. Anybody may read them: they do not vary on the user."""
    shop = find_shop(request, slug)
    listing = inventory.inventory_list(shop.pk, **InventoryForm(request.GET).arguments())
    return JsonResponse({"shop": shop.name, "currency": shop.currency, "products": listing["items"]})


async def today_api(request, slug):
    """Return today's sales as JSON: an async view over an async cached function."""
    shop = await Tenant.objects.filter(slug=slug).afirst()
    user = await request.auser()
    if shop is None or getattr(user, "tenant_id", None) not in (None, shop.pk):
        return JsonResponse({"error": f"No shop is called {slug}."}, status=404)
    return JsonResponse({"shop": shop.name, "today": await sales.sales_today(shop.pk)})
