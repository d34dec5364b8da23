"""What the pages share that ask before they act: the form, whose targets they may be, the way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms
from django.http import Http404
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from cacheadmin.conf import config
from cacheadmin.exceptions import CacheAdminError
from cacheadmin.targets import ALL, All, Target
from cacheadmin.tenancy import tenancy

from . import ids, naming
from .pages import Crumb, Page


class ConfirmForm(forms.Form):
    """What a person adds to an act: why, and the name of what is hit where it is much."""

    reason = forms.CharField(
        label=gettext_lazy("Reason"), required=False, max_length=300, widget=forms.TextInput({"maxlength": 300})
    )
    name = forms.CharField(required=False, max_length=500, widget=forms.TextInput({"autocomplete": "off"}))
    counted = forms.IntegerField(required=False, widget=forms.HiddenInput)
    warm = forms.BooleanField(required=False)

    def __init__(self, *args: Any, typed: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.typed = typed
        if not typed:
            del self.fields["name"]

    def clean_name(self) -> str:
        """Raise a ValidationError unless the name was typed as it stands on the page."""
        name = str(self.cleaned_data["name"])
        if name.strip() != self.typed.strip():
            text = _("“%(given)s” is not the name. Type “%(name)s”.")
            raise forms.ValidationError(text % {"given": name, "name": self.typed})
        return name


def must_type(targets: Sequence[Target], entries: int | None) -> bool:
    """Say whether an act is wide enough to ask for a name: several tenants, a whole alias, or very many entries."""
    tenants = {target.tenant for target in targets}
    return ALL in tenants or len(tenants) > 1 or entries is None or entries > config().confirm_above


def check(page: Page, targets: Sequence[Target]) -> None:
    """Raise Http404 for targets that the user may not see, as for those that never were."""
    for target in targets:
        if isinstance(target.tenant, All):
            if page.access.is_bound:
                raise Http404
        else:
            page.access.require_tenant(target.tenant)
        if target.alias is not None and target.alias not in page.access.aliases:
            raise Http404


def open_scope(page: Page, token: str) -> tuple[Target, ...]:
    """
    Return the targets of an id; what it means for all aliases is narrowed to those that the user may see.

    Raises: Http404 for what is no id, or not for this user.
    """
    try:
        targets = ids.open_scope(token)
    except CacheAdminError as error:
        raise Http404 from error
    check(page, targets)
    return page.access.within(targets)


def back_to(page: Page, targets: Sequence[Target]) -> str:
    """Return the URL of the smallest page that shows all of what some targets hit."""
    tenants = {target.tenant for target in targets}
    if len(tenants) == 1 and ALL not in tenants:
        tenant = ids.tenant_id(next(t for t in tenants if not isinstance(t, All)))
        places = {(target.alias, _group_of(target)) for target in targets}
        if len(places) == 1:
            alias, group = next(iter(places))
            if alias and group:
                return page.url("cacheadmin_entry_list", tenant, ids.group_id(alias, group))
        return page.url("cacheadmin_tenant_detail", tenant)
    return page.url("cacheadmin_tenant_list" if tenancy().has_tenants else "cacheadmin_group_list")


def crumbs_of(page: Page, targets: Sequence[Target], act: str) -> list[Crumb]:
    """Return the breadcrumbs of an act on some targets."""
    tenants = {target.tenant for target in targets}
    start = [Crumb(_("Tenants"), page.url("cacheadmin_tenant_list"))] if tenancy().has_tenants else []
    if len(tenants) == 1 and ALL not in tenants:
        tenant = next(t for t in tenants if not isinstance(t, All))
        label = naming.tenant_label(tenant)
        return [*start, Crumb(label, page.url("cacheadmin_tenant_detail", ids.tenant_id(tenant))), Crumb(act)]
    return [*start, Crumb(act)]


def _group_of(target: Target) -> str:
    if target.kind == "group":
        return target.name
    return target.name.rpartition(":")[0] if target.kind == "key" else ""
