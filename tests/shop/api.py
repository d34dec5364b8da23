"""The part of the JSON API that is made with Django REST framework; there only if that is installed."""

from rest_framework.permissions import AllowAny
from rest_framework.response import Response
from rest_framework.views import APIView

from cacheadmin import cache_api_response

from . import inventory, sales
from .views import find_shop


class StockView(APIView):
    """Answer with the number and value of a shop's items, by category and by branch."""

    permission_classes = (AllowAny,)

    @cache_api_response(timeout=180, key_prefix="stock_api")
    def get(self, request, slug):
        shop = find_shop(request, slug)
        return Response(
            {
                "shop": shop.name,
                "categories": inventory.category_counts(shop.pk),
                "branches": [inventory.branch_board(shop.pk, branch["id"]) for branch in inventory.branches(shop.pk)],
                "best_sellers": sales.best_sellers(shop.pk),
            }
        )
