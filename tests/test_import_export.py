"""Rules as files: what is written is read again, and what a hostile file holds does nothing."""

import csv
import io
import json
import zipfile

import openpyxl
import pytest
import yaml
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from cacheadmin.admin import rule_files, rule_import
from cacheadmin.admin.rule_files import CSV, FORMATS, JSON, XLSX, YAML, UnreadableFile, quiet, read, unquiet
from cacheadmin.exceptions import InvalidRule
from cacheadmin.models import Activity, InvalidationRule
from cacheadmin.rules import RuleTarget

IMPORT = "admin:cacheadmin_invalidationrule_import"
EXPORT = "admin:cacheadmin_invalidationrule_export"


def make_rule(name="stock", **columns):
    targets = columns.pop("targets", [{"kind": "group", "name": "inventory_list", "alias": None, "tenant": "same"}])
    return InvalidationRule.objects.create(name=name, model="shop.InventoryItem", targets=targets, **columns)


def upload(client, content, name="rules.csv", **data):
    file = io.BytesIO(content if isinstance(content, bytes) else content.encode())
    file.name = name
    return client.post(reverse(IMPORT), {"file": file, **data})


def apply(client, response, **data):
    return client.post(reverse(IMPORT), {"rows": response.context["diff"].token, "apply": "1", **data})


# --- there and back -----------------------------------------------------------------------------------------------


RICH = {
    "events": ["update", "m2m"],
    "fields": ["price", "quantity"],
    "tenant": "branch__tenant_id",
    "targets": [
        {"kind": "tag", "name": "branch:{branch_id}", "alias": "query", "tenant": "all"},
        {"kind": "tenant", "name": "", "alias": None, "tenant": "shared"},
        {"kind": "group", "name": "odd of all tenants in query", "alias": None, "tenant": "same"},
        {"kind": "group", "name": "{not: a placeholder", "alias": "api", "tenant": "same"},
    ],
    "warm": True,
    "enabled": False,
    "note": '=HYPERLINK("http://x")',
}


@pytest.mark.django_db
@pytest.mark.parametrize("file_format", ["json", "yaml", "csv", "xlsx"])
def test_what_is_exported_imports_as_the_same(admin_client, admin_user, file_format):
    make_rule("plain")
    make_rule('-rich, with "quotes"', **RICH)
    answer = admin_client.get(reverse(EXPORT), {"format": file_format})
    assert answer.status_code == 200
    assert answer["Content-Disposition"].startswith("attachment")
    diff = rule_import.compare(
        read(answer.content, rule_files.format_of(f"x.{file_format}")), admin_user, may_add=True, may_change=True
    )
    assert [(line.name, line.what, line.errors) for line in diff.lines] == [
        ('-rich, with "quotes"', "same", ()),
        ("plain", "same", ()),
    ]


@pytest.mark.django_db
@pytest.mark.parametrize("file_format", ["json", "yaml", "csv", "xlsx"])
def test_an_exported_rule_can_be_made_again_from_its_file(admin_client, file_format):
    made = make_rule("rich", **RICH)
    answer = admin_client.get(reverse(EXPORT), {"format": file_format})
    made.delete()
    apply(admin_client, upload(admin_client, answer.content, f"rules.{file_format}"))
    again = InvalidationRule.objects.get()
    assert {name: getattr(again, name) for name in RICH} == RICH


@pytest.mark.django_db
def test_only_selected_rules_are_exported(admin_client):
    make_rule("one")
    three = make_rule("three")
    answer = admin_client.get(reverse(EXPORT), {"format": "json", "only": str(three.pk)})
    assert [rule["name"] for rule in json.loads(answer.content)] == ["three"]


@given(st.text(max_size=40))
def test_quieting_a_cell_can_be_undone(text):
    assert unquiet(quiet(text)) == text
    assert not quiet(text).startswith(("=", "+", "-", "@", "\t", "\r"))


@pytest.mark.django_db
@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_spreadsheet_never_gets_a_formula(admin_client, start):
    make_rule(f"{start}1+1|cmd", note=f"{start}cmd", tenant="-")
    answer = admin_client.get(reverse(EXPORT), {"format": "csv"})
    [_, row] = csv.reader(io.StringIO(answer.content.decode(), newline=""))
    assert not [cell for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    answer = admin_client.get(reverse(EXPORT), {"format": "xlsx"})
    cells = [cell for row in openpyxl.load_workbook(io.BytesIO(answer.content)).active.iter_rows() for cell in row]
    assert {cell.data_type for cell in cells if cell.value is not None} == {"s"}
    assert not [cell.value for cell in cells if str(cell.value or "").startswith(("=", "+", "-", "@", "\t", "\r"))]


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("prefix:inventory", RuleTarget("prefix", "inventory")),
        ("inventory_list", RuleTarget("group", "inventory_list")),
        ("tag:branch:{branch_id} of all tenants in query", RuleTarget("tag", "branch:{branch_id}", "query", "all")),
        ("tenant of shared data", RuleTarget("tenant", tenant="shared")),
        ('{"kind": "group", "name": "a in b"}', RuleTarget("group", "a in b")),
    ],
)
def test_a_target_is_one_line(text, target):
    assert rule_files.target_of(text) == target
    assert rule_files.target_of(rule_files.target_text(target.to_json())) == target


@given(
    st.sampled_from(["group", "prefix", "tag", "fragment", "key", "pattern", "tenant"]),
    st.text(alphabet="ab :{}*of in\"'\\\n", max_size=20),
    st.sampled_from([None, "query", "in"]),
    st.sampled_from(["same", "all", "shared"]),
)
def test_any_target_survives_a_cell(kind, name, alias, tenant):
    target = RuleTarget(kind, name.strip(), alias, tenant)
    text = rule_files.target_text(target.to_json())
    assert "\n" not in text
    assert rule_files.target_of(text) == target


# --- the diff -----------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_the_diff_says_what_would_change_and_writes_nothing(admin_client):
    make_rule("stock", fields=["price"])
    make_rule("elsewhere")
    before = list(InvalidationRule.objects.values())
    answer = upload(
        admin_client,
        "name,model,fields,targets,enabled\n"
        'stock,shop.InventoryItem,"price, quantity",group:inventory_list,no\n'
        "wrong,shop.InventoryItm,,group:x,maybe\n"
        "fresh,shop.Sale,,prefix:sales,\n",
    )
    diff = answer.context["diff"]
    assert str(diff) == "2 changes: 1 new, 1 changed, 1 error"
    assert [(line.number, line.name, line.what) for line in diff.told] == [
        (3, "wrong", "error"),
        (2, "stock", "changed"),
        (4, "fresh", "new"),
    ]
    assert list(diff.told[1].differences) == ["fields: +\u00a0quantity", "enabled: on → off"]
    wrong = dict(diff.told[0].errors)
    assert wrong["enabled"] == "“maybe” is neither yes nor no."
    assert "Did you mean shop.InventoryItem" in wrong["model"]
    assert diff.elsewhere == 1
    assert list(InvalidationRule.objects.values()) == before
    assert b"wrong" in answer.content
    assert b"Apply 2 changes" in answer.content


@pytest.mark.django_db
def test_nothing_is_applied_while_rows_are_wrong_unless_they_are_to_be_left_out(admin_client):
    answer = upload(admin_client, "name,model,targets\ngood,shop.Sale,prefix:sales\nbad,shop.Nope,prefix:sales\n")
    again = apply(admin_client, answer)
    assert b"Some rows are wrong." in again.content
    assert not InvalidationRule.objects.exists()
    done = apply(admin_client, answer, without_errors="1")
    assert done.status_code == 302
    assert [rule.name for rule in InvalidationRule.objects.all()] == ["good"]
    assert Activity.objects.get(kind="rule").what == "Imported 1 rule: 1 new"


@pytest.mark.django_db
def test_a_diff_is_shown_again_when_rules_changed_meanwhile(admin_client):
    answer = upload(admin_client, "name,model,targets\nstock,shop.Sale,prefix:sales\n")
    make_rule("stock")
    again = apply(admin_client, answer)
    assert b"The rules changed meanwhile." in again.content
    assert InvalidationRule.objects.get().model == "shop.InventoryItem"
    assert apply(admin_client, again).status_code == 302
    assert InvalidationRule.objects.get().model == "shop.Sale"


@pytest.mark.django_db
def test_a_diff_belongs_to_who_made_it_and_cannot_be_forged(admin_client, client, django_user_model):
    answer = upload(admin_client, "name,model,targets\nstock,shop.Sale,prefix:sales\n")
    other = django_user_model.objects.create_superuser("other", password="x")
    client.force_login(other)
    apply(client, answer)
    token = answer.context["diff"].token
    for forged in ("", token[:-2], token[1:], "a:b:c"):
        admin_client.post(reverse(IMPORT), {"rows": forged, "apply": "1"})
    assert not InvalidationRule.objects.exists()


@pytest.mark.django_db
def test_a_missing_column_leaves_what_is_there(admin_client):
    make_rule("stock", fields=["price"], note="keep me")
    apply(admin_client, upload(admin_client, "name,enabled\nstock,no\n"))
    rule = InvalidationRule.objects.get()
    assert (rule.enabled, rule.fields, rule.note) == (False, ["price"], "keep me")


@pytest.mark.django_db
def test_rows_of_json_may_have_their_keys_in_any_order(admin_client):
    rows = [
        {"name": "a", "model": "shop.Sale", "targets": ["prefix:sales"]},
        {"targets": [{"kind": "group", "name": "x"}], "note": "n", "model": "shop.Branch", "name": "b"},
    ]
    apply(admin_client, upload(admin_client, json.dumps(rows), "rules.json"))
    assert dict(InvalidationRule.objects.values_list("name", "model")) == {"a": "shop.Sale", "b": "shop.Branch"}


@pytest.mark.django_db
def test_a_name_that_stands_twice_is_an_error(admin_client):
    answer = upload(admin_client, "name,model,targets\nx,shop.Sale,prefix:a\nx,shop.Sale,prefix:b\n")
    assert [line.what for line in answer.context["diff"].lines] == ["new", "error"]


@pytest.mark.django_db
def test_a_trial_reads_the_rules_twice_whatever_the_file_holds(admin_user):
    text = "name,model,targets\n" + "".join(f"rule {i},shop.Sale,prefix:p{i}\n" for i in range(100))
    with CaptureQueriesContext(connection) as asked:
        diff = rule_import.compare(read(text.encode(), CSV), admin_user, may_add=True, may_change=True)
    assert diff.counts["new"] == 100
    assert len([query for query in asked if "SAVEPOINT" not in query["sql"]]) == 2


# --- who may ------------------------------------------------------------------------------------------------------


@pytest.fixture
def staff(client, django_user_model):
    """`staff("import_rules", …)` logs a member of the staff in who has these permissions on rules."""

    def login(*codenames):
        from django.contrib.auth.models import Permission

        user = django_user_model.objects.create_user("clerk", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client.force_login(user)
        return client

    return login


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("codenames", "status"),
    [
        ((), 403),
        (("import_rules",), 403),
        (("add_invalidationrule", "change_invalidationrule"), 403),
        (("import_rules", "add_invalidationrule"), 200),
        (("import_rules", "change_invalidationrule"), 200),
    ],
)
def test_importing_needs_its_own_permission(staff, codenames, status):
    client = staff(*codenames)
    assert client.get(reverse(IMPORT)).status_code == status
    assert upload(client, "name,model,targets\nx,shop.Sale,prefix:a\n").status_code == status


@pytest.mark.django_db
def test_a_file_does_not_do_what_its_user_may_not(staff):
    make_rule("old")
    client = staff("import_rules", "add_invalidationrule")
    answer = upload(client, "name,model,targets\nold,shop.Sale,prefix:a\nnew,shop.Sale,prefix:a\n")
    assert {line.name: line.what for line in answer.context["diff"].lines} == {"old": "error", "new": "new"}
    apply(client, answer, without_errors="1")
    assert InvalidationRule.objects.get(name="old").model == "shop.InventoryItem"
    assert InvalidationRule.objects.filter(name="new").exists()


@pytest.mark.django_db
def test_nobody_imports_while_the_site_is_read_only(admin_client, settings):
    settings.CACHEADMIN = {**settings.CACHEADMIN, "READ_ONLY": True}
    assert admin_client.get(reverse(IMPORT)).status_code == 403
    assert admin_client.get(reverse(EXPORT)).status_code == 200


# --- hostile files ------------------------------------------------------------------------------------------------

LAUGHS = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n"


@pytest.mark.parametrize(
    ("content", "file_format"),
    [
        (b"- name: !!python/object/apply:os.system ['touch /tmp/owned']\n", YAML),
        (b"- name: !!python/name:os.system\n", YAML),
        (LAUGHS.encode(), YAML),
        (b"- &a {name: x}\n- *a\n", YAML),
        (b"[" * 200_000, YAML),
        (b"just: a mapping", YAML),
        (b"- just a text", YAML),
        (b"[" * 200_000, JSON),
        (b'{"name": "no list"}', JSON),
        (b'[["a", "b"]]', JSON),
        (b"[1]", JSON),
        (b'[{"name": "a\\u0000b"}]', JSON),
        (b"[]", JSON),
        (b"\xff\xfe\x00", JSON),
        (b"name,model\0\nx,y\n", CSV),
        (b"name,name\nx,y\n", CSV),
        (b"name,model\nx,y,z\n", CSV),
        (b'name,model\n"x,y\n', CSV),
        (b"model,targets\nshop.Sale,prefix:a\n", CSV),
        (b"name,model,is_superuser\nx,shop.Sale,1\n", CSV),
        (b"name,pk\nx,1\n", CSV),
        (b"", CSV),
        (b"name\n" + b"x\n" * 1001, CSV),
        (b"name,note\nx," + b"y" * 30_000 + b"\n", CSV),
        (b"PK\x03\x04 no zip", XLSX),
        (b"", XLSX),
    ],
)
def test_a_hostile_file_is_refused_with_a_sentence(content, file_format):
    with pytest.raises(UnreadableFile) as caught:
        read(content, file_format)
    assert 10 < len(str(caught.value)) < 600


def workbook(parts):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return out.getvalue()


def test_a_workbook_that_unpacks_to_too_much_is_not_unpacked():
    bomb = workbook({"xl/worksheets/sheet1.xml": b"\0" * (rule_files.UNPACKED_BYTES + 1)})
    assert len(bomb) < 100_000
    with pytest.raises(UnreadableFile, match="unpacks to more than 20 MB"):
        read(bomb, XLSX)
    with pytest.raises(UnreadableFile, match="unpacks"):
        read(workbook({f"part{i}": b"" for i in range(101)}), XLSX)


@pytest.mark.parametrize("code", ["utf-8", "utf-16-le", "utf-16-be"])
def test_a_workbook_that_defines_entities_is_refused(code):
    laughs = '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol "lol">]><lolz>&lol;</lolz>'.encode(code)
    with pytest.raises(UnreadableFile, match="entities"):
        read(workbook({"xl/workbook.xml": laughs}), XLSX)


def test_formulas_and_far_away_cells_of_a_workbook_are_not_read():
    book = openpyxl.Workbook()
    book.active.append(["name", "model", "targets", "note"])
    book.active.append(["x", "shop.Sale", "prefix:sales", '=HYPERLINK("http://x")'])
    book.active["XFD1048576"] = "far away"
    out = io.BytesIO()
    book.save(out)
    assert list(read(out.getvalue(), XLSX)) == [("x", "shop.Sale", "prefix:sales", "")]


def test_a_file_above_the_limit_is_not_parsed():
    with pytest.raises(UnreadableFile, match="larger than 1024 KB"):
        read(b"name\n" + b"#" * rule_files.FILE_BYTES, CSV)


@pytest.mark.django_db
def test_an_upload_that_is_too_large_or_of_no_format_is_refused_at_its_field(admin_client):
    answer = upload(admin_client, b"#" * (rule_files.FILE_BYTES + 1))
    assert "larger than" in str(answer.context["form"].errors["file"])
    answer = upload(admin_client, b"name\nx\n", "rules.exe")
    assert "does not tell its format" in str(answer.context["form"].errors["format"])
    answer = upload(admin_client, b"name,model,targets\nx,shop.Sale,prefix:a\n", "rules.exe", format="csv")
    assert answer.context["diff"].changes == 1


WRONG_CELLS = [None, True, 3, 4.5, [], {}, [1], [[]], [{"kind": {}}], {"a": 1}, "", "x" * 250, "☃", "2024-01"]


@pytest.mark.django_db
@pytest.mark.parametrize("column", rule_files.COLUMNS)
def test_whatever_a_cell_holds_is_an_error_of_its_row_at_most(admin_client, column):
    usual = {"model": "shop.Sale", "targets": ["prefix:a"]}
    rows = [{"name": f"r{i}", **usual, column: cell} for i, cell in enumerate(WRONG_CELLS)]
    answer = upload(admin_client, json.dumps(rows), "rules.json")
    lines = answer.context["diff"].lines
    assert len(lines) == len(WRONG_CELLS)
    assert apply(admin_client, answer, without_errors="1").status_code in (200, 302)
    for rule in InvalidationRule.objects.all():
        assert isinstance(rule.name, str)
        assert isinstance(rule.events, list)
        assert isinstance(rule.warm, bool)
        assert all(RuleTarget.parse(target) for target in rule.targets)


@pytest.mark.django_db
def test_what_a_file_says_is_shown_as_text(admin_client):
    nasty = "<script>alert(1)</script>"
    row = {"name": nasty, "model": nasty, "targets": [nasty], "note": nasty}
    answer = upload(admin_client, json.dumps([row]), "rules.json")
    assert b"<script>alert" not in answer.content
    assert b"&lt;script&gt;alert" in answer.content


def test_dates_and_the_like_become_texts():
    [row] = read(yaml.safe_dump([{"name": "x", "note": "2024-01-01"}]).replace("'", "").encode(), YAML)
    assert row == ("x", "2024-01-01")


def test_each_format_says_what_it_is():
    assert [each.__name__ for each in FORMATS] == ["JSON", "YAML", "CSV", "XLSX"]
    assert all(each.__doc__ for each in FORMATS)


@pytest.mark.parametrize("text", ["", " ", "{", '{"kind": 1}', '{"other": "x"}', "{" * 100_000])
def test_a_line_that_is_no_target_is_refused(text):
    with pytest.raises(InvalidRule):
        rule_files.target_of(text)
