from django import forms
from django.utils.dateparse import parse_date


class PriceForm(forms.Form):
    price = forms.DecimalField(min_value=1, max_digits=10, decimal_places=2)


class InventoryForm(forms.Form):
    """What the inventory list was asked for; whatever is wrong falls back to everything."""

    branch = forms.IntegerField(required=False, min_value=1)
    category = forms.SlugField(required=False)
    search = forms.CharField(required=False, max_length=60)
    page = forms.IntegerField(required=False, min_value=1, max_value=10_000)

    def arguments(self):
        """Return the keyword arguments of `inventory_list`."""
        self.is_valid()
        data = self.cleaned_data
        return {
            "branch_id": data.get("branch"),
            "category": data.get("category") or None,
            "search": (data.get("search") or "").lower(),
            "page": data.get("page") or 1,
        }


def days(data, start, end):
    """Return the first and last day that `data` asks for, else `start` and `end`; swapped if the wrong way round."""

    def read(name, default):
        try:
            return parse_date(data.get(name, "")) or default
        except ValueError:
            return default

    return tuple(sorted((read("start", start), read("end", end))))
