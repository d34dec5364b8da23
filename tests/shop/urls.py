from django.conf import settings
from django.contrib import admin
from django.contrib.auth import views as auth
from django.urls import include, path

from . import views

urlpatterns = [
    path("", views.home, name="home"),
    path("gold/", views.gold_page, name="gold"),
    path("gold/move/", views.move_market, name="move_market"),
    path("login/", auth.LoginView.as_view(template_name="shop/login.html"), name="login"),
    path("logout/", auth.LogoutView.as_view(), name="logout"),
    path("shops/<slug:slug>/", views.dashboard, name="dashboard"),
    path("shops/<slug:slug>/inventory/", views.inventory_page, name="inventory"),
    path("shops/<slug:slug>/report/", views.report_page, name="report"),
    path("shops/<slug:slug>/office/", views.back_office, name="office"),
    path("shops/<slug:slug>/customers/<int:pk>/", views.customer_page, name="customer"),
    path("shops/<slug:slug>/items/<int:pk>/", views.item_page, name="item"),
    path("shops/<slug:slug>/items/<int:pk>/sell/", views.sell_item, name="sell"),
    path("shops/<slug:slug>/items/<int:pk>/price/", views.set_price, name="price"),
    path("shops/<slug:slug>/items/<int:pk>/restock/", views.restock_item, name="restock"),
    path("shops/<slug:slug>/api/products/", views.products_api, name="products"),
    path("shops/<slug:slug>/api/today/", views.today_api, name="today"),
    path("admin/", admin.site.urls),
    path("", include("django_prometheus.urls")),
]

if settings.HAS_REST_FRAMEWORK:
    from .api import StockView

    urlpatterns.append(path("shops/<slug:slug>/api/stock/", StockView.as_view(), name="stock"))
