"""Writes that nothing in the shop makes: unusual models and fields, statements beside the ORM's, rules that change."""

import contextlib
from decimal import Decimal

import pytest
from django.apps import apps
from django.core import serializers
from django.db import DatabaseError, connection, models, transaction
from django.db.models import F
from test_writes import ON_POSTGRES, tenants_of, writing

from cacheadmin import ALL, Rule, Target, rules, transactions
from cacheadmin.exceptions import InvalidRule
from cacheadmin.models import Intent, InvalidationRule
from cacheadmin.testing import captured_invalidations
from cacheadmin.transactions import own_sql
from cacheadmin.writes import shapes
from cacheadmin.writes.images import lookup
from cacheadmin.writes.statements import statement
from shop.models import Branch, Tenant, User

__all__ = ["writing"]

TENANTS = Rule("tenants", model="shop.Tenant", tenant="*", targets=["group:tenants"])


@pytest.fixture
def tenants(transactional_db):
    return [Tenant.objects.create(name=name, slug=name) for name in "ab"]


def names(dropped):
    """Return the names of all that was dropped; `tenant` for everything of one."""
    return {target.name or target.kind for i in dropped for target in i.targets}


def dropped_by(write):
    with captured_invalidations() as dropped:
        write()
    return dropped


def sql(text):
    with connection.cursor() as cursor:
        cursor.execute(text)


def script(text):
    with connection.cursor() as cursor:
        (cursor.execute if ON_POSTGRES else cursor.executescript)(text)


class Padded(models.CharField):
    def get_prep_value(self, value):
        return super().get_prep_value(value) + " "


class Wrapped(models.TextField):
    def get_db_prep_save(self, value, connection):
        return f"<{value}>"


class TestValues:
    """Values that are given to the driver as they are, where Django would only look at them."""

    VALUES = (5, 0, -1, True, False, "", "5", "text", None)

    def test_they_are_what_django_makes_of_them(self, writing):
        fields = {
            (type(field).__name__, field.model._meta.label): field
            for model in [*apps.get_models(), *writing.get_models()]
            for field in model._meta.concrete_fields
        }
        left_alone = [(field, shapes.unprepared(field, connection)) for field in fields.values()]
        for field, kind in left_alone:
            for value in self.VALUES:
                if type(value) is kind:
                    made = field.get_db_prep_save(value, connection)
                    assert (type(made), made) == (kind, value), field
        kinds = {(type(field).__name__, kind) for field, kind in left_alone}
        assert {("CharField", str), ("TextField", str), ("BooleanField", bool), ("ForeignKey", int)} <= kinds
        assert ("IntegerField", None if ON_POSTGRES else int) in kinds

    @pytest.mark.parametrize("field", [Padded(), Wrapped(), models.DecimalField(), models.JSONField()])
    def test_a_field_that_makes_something_else_of_them_is_asked(self, field):
        assert shapes.unprepared(field, connection) is None


class TestRows:
    """What is known of the rows that a write touched."""

    def test_a_parent_that_a_cascade_deletes_first_does_not_hide_the_tenant(self, writing, use_rules, tenants):
        tool, workshop = writing.get_model("Tool"), writing.get_model("Workshop")
        use_rules(Rule("tools", model="writing.Tool", tenant="workshop__tenant_id", targets=["tools"]))
        made = workshop.objects.create(tenant=tenants[0], name="w")
        tool.objects.create(workshop=made, label="saw")
        assert tenants_of(dropped_by(made.delete)) == [["*"]]
        assert not tool.objects.exists()
        without = tool.objects.create(label="file")
        assert tenants_of(dropped_by(without.delete)) == [[None]]

    def test_a_reference_that_leads_nowhere_does_not_hide_the_row(self, writing, use_rules, tenants):
        label, workshop = writing.get_model("Label"), writing.get_model("Workshop")
        made = workshop.objects.create(tenant=tenants[0], name="w")
        one = label.objects.create(workshop=made, place_id=999_999, text="one")
        targets = ["tag:at:{place__name}", "labels"]
        use_rules(Rule("labels", model="writing.Label", tenant="workshop__tenant_id", targets=targets))
        mine = str(tenants[0].pk)
        for write in (
            one.save,
            lambda: label.objects.filter(pk=one.pk).update(price=2),
            lambda: label.objects.filter(text="one").update(price=3),
            lambda: label.objects.filter(text="one").delete(),
        ):
            assert set(tenants_of(dropped_by(write))[0]) == {mine}

    def test_a_child_is_found_by_the_key_of_whichever_parent_was_written(self, writing, use_rules, tenants):
        article, review, place = (writing.get_model(name) for name in ("Article", "Review", "Place"))
        article.objects.create(title="of nobody")
        made = review.objects.create(tenant=tenants[0], name="w", title="t")
        assert made.article_id != made.pk
        use_rules(Rule("reviews", model="writing.Review", targets=["tag:review:{pk}"]))
        for write in (
            lambda: article.objects.filter(pk=made.article_id).update(title="1"),
            lambda: article.objects.filter(title="1").update(title="2"),
            lambda: place.objects.filter(pk=made.pk).update(name="3"),
            lambda: review.objects.filter(title="2").update(title="4", name="5", benches=6),
        ):
            dropped = dropped_by(write)
            assert names(dropped) == {f"review:{made.pk}"}
            assert {t.tenant for i in dropped for t in i.targets} == {str(tenants[0].pk)}

    def test_a_child_that_a_fixture_brings_has_the_tenant_of_its_parents_row(self, writing, use_rules, tenants):
        place, workshop = writing.get_model("Place"), writing.get_model("Workshop")
        made = workshop.objects.create(tenant=tenants[0], name="w")
        text = serializers.serialize("json", [place.objects.get(), made])
        made.delete()
        use_rules(Rule("workshops", model="writing.Workshop", targets=["workshops"]))
        with captured_invalidations() as dropped:
            for loaded in serializers.deserialize("json", text):
                loaded.save()
        assert tenants_of(dropped) == [[str(tenants[0].pk)]]

    def test_a_row_that_moves_is_heard_of_whatever_fields_are_watched(self, use_rules, tenants):
        one, two = tenants
        branch = Branch.objects.create(tenant=one, name="b", city="x")
        use_rules(Rule("branches", model="shop.Branch", fields=["name"], targets=["tag:in:{city}"]))
        branch.tenant = two
        assert tenants_of(dropped_by(branch.save)) == [[str(one.pk), str(two.pk)]]
        branch.city = "y"
        assert names(dropped_by(lambda: branch.save(update_fields=["city"]))) == {"in:x", "in:y"}
        assert dropped_by(branch.save) == []

    def test_a_key_of_several_columns_is_no_placeholder(self, writing, use_rules, tenants):
        shelf = writing.get_model("Shelf")
        rule = Rule("shelves", model="writing.Shelf", targets=["tag:shelf:{pk}"])
        assert ["'pk'" in str(problem) for problem in rules.validate(rule)] == [True]
        use_rules(rule)
        for write in (
            lambda: shelf.objects.create(tenant=tenants[0], number=5),
            lambda: shelf.objects.get().save(),
            lambda: shelf.objects.filter(number=5).update(tool=None),
            lambda: shelf.objects.filter(pk=(tenants[0].pk, 5)).update(tool=None),
            lambda: shelf.objects.get().delete(),
        ):
            dropped = dropped_by(write)
            assert names(dropped) == {"tenant"}
            assert tenants_of(dropped) == [[str(tenants[0].pk)]]

    def test_a_key_that_an_expression_changes_is_not_looked_up_by_the_old_one(self, writing, use_rules):
        article = writing.get_model("Article")
        use_rules(Rule("articles", model="writing.Article", tenant="-", targets=["tag:article:{pk}"]))
        made = article.objects.create(title="x")
        found = article.objects.filter(pk=made.pk)
        assert names(dropped_by(lambda: found.update(article_id=F("article_id") + 7))) == {
            f"article:{made.pk}",
            "tenant",
        }

    @pytest.mark.skipif(not ON_POSTGRES, reason="SQLite locks no rows")
    def test_a_view_whose_rows_cannot_be_locked_can_be_written(self, writing, use_rules):
        title, article = writing.get_model("Title"), writing.get_model("Article")
        sql("CREATE VIEW writing_title AS SELECT c0 AS title, COUNT(*) AS count FROM writing_article GROUP BY c0")
        sql(
            "CREATE FUNCTION retitle() RETURNS trigger AS $$ BEGIN UPDATE writing_article SET c0 = NEW.title "
            "WHERE c0 = OLD.title; RETURN NEW; END $$ LANGUAGE plpgsql"
        )
        sql("CREATE TRIGGER retitle INSTEAD OF UPDATE ON writing_title FOR EACH ROW EXECUTE FUNCTION retitle()")
        try:
            article.objects.create(title="x")
            use_rules(Rule("titles", model="writing.Title", tenant="-", fields=["title"], targets=["tag:{count}"]))
            with captured_invalidations() as dropped, transaction.atomic():
                assert title.objects.filter(count=1).update(title="y") == 1
                assert title.objects.filter(pk="y").update(title="z") == 1
            assert names(dropped) == {"tenant"}
            assert article.objects.get().title == "z"
        finally:
            sql("DROP VIEW writing_title; DROP FUNCTION retitle")

    def test_a_column_may_have_any_name(self, writing, use_rules):
        article = writing.get_model("Article")
        use_rules(Rule("articles", model="writing.Article", tenant="-", fields=["title"], targets=["articles"]))
        made = article.objects.create(title="x")
        assert names(dropped_by(lambda: article.objects.filter(pk=made.pk).update(title="y"))) == {"articles"}
        assert names(dropped_by(lambda: article.objects.filter(pk=made.pk).update(title="y"))) == set()

    def test_a_column_that_the_database_computes_changes_with_the_others(self, writing, use_rules):
        tool = writing.get_model("Tool")
        watching = Rule("watching", model="writing.Tool", tenant="-", fields=["loud"], targets=["tools"])
        use_rules(watching, Rule("tagged", model="writing.Tool", tenant="-", targets=["tag:{loud}"]))
        made = tool.objects.create(label="a")
        found = tool.objects.filter(pk=made.pk)
        assert names(dropped_by(lambda: found.update(label="b"))) == {"tools", "A", "B"}
        assert names(dropped_by(lambda: tool.objects.filter(label="b").update(label="c"))) == {"tools", "B", "tenant"}
        assert names(dropped_by(lambda: tool.objects.bulk_create([tool(label="d")], ignore_conflicts=True))) == {
            "tools",
            "tenant",
        }

    def test_a_value_that_the_database_rounds_is_not_taken_for_what_it_keeps(self, writing, use_rules, tenants):
        label, workshop = writing.get_model("Label"), writing.get_model("Workshop")
        made = workshop.objects.create(tenant=tenants[0], name="w")
        use_rules(Rule("labels", model="writing.Label", tenant="-", targets=["tag:{price}"]))
        one = label(workshop=made, place=made, text="one", price=Decimal("10"))
        assert names(dropped_by(one.save)) == {"tenant"}
        found = label.objects.filter(pk=one.pk)
        assert names(dropped_by(lambda: found.update(price=Decimal("11")))) == {"10.00", "11.00"}

    def test_a_choice_is_its_value(self, use_rules, tenants):
        use_rules(Rule("users", model="shop.User", tenant="role", targets=["tag:{role}"]))
        dropped = dropped_by(lambda: User.objects.create(username="x", role=User.Role.OWNER))
        assert (tenants_of(dropped), names(dropped)) == ([["owner"]], {"owner"})

    def test_a_field_that_chooses_its_value_itself_is_not_believed(self, writing, use_rules):
        bill = writing.get_model("Bill")
        use_rules(Rule("bills", model="writing.Bill", tenant="-", targets=["tag:{number}"]))
        assert names(dropped_by(lambda: bill.objects.create(number=3))) == {"tenant"}
        assert bill.objects.get().number == 7

    def test_a_row_that_comes_between_the_look_and_the_statement_is_not_missed(
        self, writing, use_rules, tenants, monkeypatch
    ):
        place = writing.get_model("Place")
        use_rules(Rule("places", model="writing.Place", targets=["places"]))

        def look(*args, **kwargs):
            found = lookup(*args, **kwargs)
            with own_sql.unseen(connection):
                place.objects.bulk_create([place(pk=1, tenant=tenants[0], name="another's")])
            return found

        monkeypatch.setattr("cacheadmin.writes.touching.lookup", look)
        assert tenants_of(dropped_by(lambda: place.objects.filter(pk=1)._raw_delete("default"))) == [["*"]]


class TestStatements:
    """What is sent while another statement runs, and what is sent by hand."""

    def test_raw_sql_of_a_field_is_seen_while_its_row_is_written(self, writing, use_rules):
        bill = writing.get_model("Bill")
        use_rules(Rule("bare", model="writing.Bare", tenant="-", targets=["bare"]))
        assert names(dropped_by(bill.objects.create)) == {"bare"}

    def test_raw_sql_of_somebodys_wrapper_is_seen(self, use_rules, tenants):
        use_rules(TENANTS, Rule("branches", model="shop.Branch", tenant="*", targets=["branches"]))
        branch = Branch.objects.create(tenant=tenants[0], name="b", city="c")

        def audit(execute, sql, *rest):
            if "shop_branch" in sql:
                with connection.cursor() as cursor:
                    cursor.execute("UPDATE shop_tenant SET currency = 'EUR'")
            return execute(sql, *rest)

        with connection.execute_wrapper(audit):
            assert names(dropped_by(branch.save)) == {"tenants", "branches"}

    @pytest.mark.parametrize("begin", ["BEGIN", "begin transaction;"])
    def test_a_transaction_begun_by_hand_is_one(self, begin, use_rules, tenants):
        use_rules(TENANTS)
        Intent.objects.all().delete()
        with captured_invalidations() as dropped:
            sql(begin)
            tenants[0].save()
            sql("UPDATE shop_tenant SET currency = 'EUR'")
            assert (dropped, transactions.may_read(), transactions.may_fill()) == ([], False, False)
            assert not Intent.objects.exists()
            sql("COMMIT")
            assert (len(dropped), Intent.objects.count(), transactions.may_read()) == (1, 1, True)
            sql("BEGIN")
            tenants[0].save()
            sql("ROLLBACK")
            assert transactions.may_fill()
            with transaction.atomic():
                pass
            assert len(dropped) == 1
            tenants[0].save()
        assert (len(dropped), transactions.is_open(), transactions.may_fill()) == (2, False, True)

    def test_what_is_committed_by_hand_inside_a_block_is_delivered(self, use_rules, tenants):
        use_rules(TENANTS)
        with captured_invalidations() as dropped, contextlib.suppress(KeyError), transaction.atomic():
            tenants[0].name = "new"
            tenants[0].save()
            sql("COMMIT")
            assert len(dropped) == 1
            sql("BEGIN")
            raise KeyError
        assert Tenant.objects.filter(name="new").exists()
        assert len(dropped) == 1

    def test_a_savepoint_rolled_back_by_hand_ends_nothing(self, use_rules, tenants):
        use_rules(TENANTS)
        with captured_invalidations() as dropped, transaction.atomic():
            sql("SAVEPOINT mine")
            tenants[0].save()
            sql("ROLLBACK TO SAVEPOINT mine")
            assert not transactions.may_read()
        assert len(dropped) == 1

    def test_a_transaction_that_several_statements_begin_is_one(self, use_rules, tenants):
        use_rules(TENANTS)
        Intent.objects.all().delete()
        with captured_invalidations() as dropped:
            script("BEGIN; UPDATE shop_tenant SET currency = 'EUR'")
            assert (dropped, transactions.is_open(), transactions.may_read()) == ([], True, False)
            assert not transactions.may_fill()
            sql("COMMIT")
            assert (len(dropped), transactions.is_open(), transactions.may_fill()) == (1, False, True)
            script("BEGIN; UPDATE shop_tenant SET currency = 'USD'")
            sql("ROLLBACK")
            assert (len(dropped), transactions.is_open(), transactions.may_fill()) == (1, False, True)
            script("BEGIN; SELECT 1; COMMIT")
            assert (len(dropped), transactions.is_open(), transactions.may_fill()) == (1, False, True)

    def test_a_transaction_that_several_statements_end_is_over(self, use_rules, tenants):
        use_rules(TENANTS)
        Intent.objects.all().delete()
        with captured_invalidations() as dropped:
            sql("BEGIN")
            tenants[0].save()
            script("SELECT 1; COMMIT; BEGIN; SELECT 1" if ON_POSTGRES else "SELECT 1; BEGIN; SELECT 1")
            assert (len(dropped), Intent.objects.count(), transactions.is_open()) == (1, 1, True)
            sql("COMMIT")
            assert len(dropped) == 2, "nobody knows which of the two had written"

    @pytest.mark.skipif(ON_POSTGRES, reason="only SQLite's driver commits before a script")
    def test_a_script_commits_what_was_open(self, use_rules, tenants):
        use_rules(TENANTS)
        with captured_invalidations() as dropped:
            sql("BEGIN")
            tenants[0].save()
            script("SELECT 1")
        assert (len(dropped), transactions.is_open(), transactions.may_read()) == (1, False, True)

    @pytest.mark.skipif(not ON_POSTGRES, reason="PostgreSQL gives the whole transaction up")
    def test_a_commit_that_postgresql_turns_into_a_rollback_stays_quiet(self, use_rules, tenants):
        use_rules(TENANTS)
        tenants[0].name = "lost"
        with captured_invalidations() as dropped, transaction.atomic():
            tenants[0].save()
            with contextlib.suppress(DatabaseError):
                sql("SELECT nonsense")
        assert not Tenant.objects.filter(name="lost").exists()
        assert dropped == []

    @pytest.mark.skipif(not ON_POSTGRES, reason="SQLite has no TRUNCATE")
    def test_truncate_cascade_empties_tables_that_it_does_not_name(self, use_rules, tenants):
        use_rules(Rule("lines", model="shop.SaleLine", tenant="*", targets=["lines"]))
        assert names(dropped_by(lambda: sql("TRUNCATE shop_branch CASCADE"))) == {"lines"}

    @pytest.mark.parametrize(
        ("text", "reaches"),
        [
            ("TRUNCATE a CASCADE", True),
            ("SET x = 1; truncate a restart identity cascade", True),
            ("TRUNCATE a", False),
            ("UPDATE a JOIN b ON a.x = b.x SET b.y = 1", True),
            ("UPDATE a SET y = 1 FROM b JOIN c ON true", False),
        ],
    )
    def test_the_text_tells_whether_other_tables_are_reached(self, text, reaches):
        assert statement(text).reaches_others is reaches

    @pytest.mark.parametrize(
        ("text", "control"),
        [
            ("BEGIN IMMEDIATE", "begin"),
            ("START TRANSACTION ISOLATION LEVEL SERIALIZABLE", "start"),
            ("/* by hand */ COMMIT;", "commit"),
            ("ROLLBACK WORK", "rollback"),
            ("ROLLBACK TO SAVEPOINT a", ""),
            ("COMMIT PREPARED 'a'", ""),
            ("SELECT 1", ""),
        ],
    )
    def test_the_text_tells_what_begins_and_ends_a_transaction(self, text, control):
        told = statement(text)
        assert (told.control, told.is_several) == (control, False)

    @pytest.mark.parametrize(
        ("text", "control"),
        [
            ("BEGIN; UPDATE a SET b = 1; COMMIT", "commit"),
            ("SELECT 1; COMMIT; /* anew */ start  transaction", "start"),
            ("CALL a(); ROLLBACK", "rollback"),
            ("UPDATE a SET b = 'C:\\'; COMMIT; SELECT ''", "commit"),
            ("SELECT 1; SELECT 2", ""),
            ("BEGIN; -- and no more", "begin"),
            ("SAVEPOINT a; ROLLBACK TO a", ""),
        ],
    )
    def test_the_text_tells_which_of_several_statements_ends_or_begins_one(self, text, control):
        assert statement(text).control == control

    @pytest.mark.parametrize(
        ("text", "may_set"),
        [
            ("SELECT set_config('default_transaction_isolation', %s, false)", True),
            ("SELECT set_config(%s, %s, false)", True),
            ("SELECT Set_Config (setting_name => %s)", True),
            ("SELECT set_config('app.tenant', %s, true)", False),
            ("SELECT set_config('search_path', 'a', true), set_config('TRANSACTION_ISOLATION', 'b', true)", True),
            ("UPDATE pg_catalog.pg_settings SET setting = %s", True),
            ("SELECT 1; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", True),
            ("RESET ALL", True),
            ("discard all", True),
            ("RESET search_path", False),
            ("RESET default_transaction_isolation", True),
            ("UPDATE a SET isolation = 1", False),
        ],
    )
    def test_the_text_tells_whether_the_level_of_isolation_may_be_another(self, text, may_set):
        assert statement(text).sets_isolation is may_set

    def test_what_begins_with_no_word_is_read_all_the_same(self):
        assert statement("# by hand\nUPDATE a SET b = 1").tables == {"a"}
        assert statement(" -- nothing\n;").tables == frozenset()

    def test_a_connection_that_begins_a_transaction_by_itself_has_written_with_its_first_statement(
        self, use_rules, tenants, tmp_path
    ):
        use_rules(TENANTS)
        other = connection.copy(alias="other")
        other.settings_dict |= {"AUTOCOMMIT": False}
        if not ON_POSTGRES:
            other.settings_dict["NAME"] = tmp_path / "other.sqlite3"
        try:
            transactions.mark_written(other)
            assert transactions.state_of(other).pending.has_written
        finally:
            other.close()


class TestRules:
    """Rules that are broken in part, or others than when the write began."""

    def test_a_rule_made_while_a_transaction_runs_hears_of_what_it_wrote(self, use_rules, tenants):
        use_rules(Rule("branches", model="shop.Branch", tenant="*", targets=["branches"]))
        with captured_invalidations() as dropped, transaction.atomic():
            tenants[0].save()
            sql("UPDATE shop_user SET email = ''")
            use_rules(TENANTS, Rule("users", model="shop.User", tenant="*", targets=["users"]))
        assert names(dropped) == {"tenants", "users"}

    def test_a_rule_made_while_a_statement_runs_alone_hears_of_it(self, use_rules, tenants):
        use_rules(Rule("branches", model="shop.Branch", tenant="*", targets=["branches"]))

        def take_long(execute, *rest):
            use_rules(TENANTS)
            return execute(*rest)

        with connection.execute_wrapper(take_long):
            assert names(dropped_by(tenants[0].save)) == {"tenants"}

    def test_rules_that_were_read_anew_and_are_the_same_widen_nothing(self, use_rules, tenants):
        use_rules(Rule("branches", model="shop.Branch", targets=["branches"]))
        branch = Branch.objects.create(tenant=tenants[0], name="b", city="c")
        with captured_invalidations() as dropped, transaction.atomic():
            branch.save()
            rules.forget()
        assert tenants_of(dropped) == [[str(tenants[0].pk)]]

    def test_rules_that_are_not_committed_are_in_force_nowhere(self, tenants):
        with transaction.atomic():
            InvalidationRule.objects.create(name="mine", model="shop.Tenant", tenant="*", targets=["group:mine"])
            rules.forget()
            assert "mine" in {rule.name for rule in rules.all_rules()}
            assert rules.at_hand() is None
            transaction.set_rollback(True)
        assert "mine" not in {rule.name for rule in rules.all_rules()}

    def test_an_event_that_is_none_is_any(self, use_rules, tenants):
        use_rules(Rule("tenants", model="shop.Tenant", tenant="*", events=["updated"], targets=["tenants"]))
        assert dropped_by(tenants[0].save)

    def test_a_column_that_holds_no_ids_means_all_tenants(self, use_rules, tenants):
        use_rules(Rule("users", model="shop.User", tenant="is_active", targets=["users"]))
        assert tenants_of(dropped_by(lambda: User.objects.create(username="x"))) == [["*"]]

    def test_a_placeholder_that_is_empty_leaves_no_name_to_drop(self, use_rules, tenants):
        use_rules(Rule("users", model="shop.User", tenant="-", targets=["tag:{email}"]))
        assert names(dropped_by(lambda: User.objects.create(username="x"))) == {"tenant"}

    def test_whatever_fails_when_rules_are_applied_drops_everything_and_breaks_no_commit(
        self, use_rules, tenants, monkeypatch, caplog
    ):
        use_rules(TENANTS)
        monkeypatch.setattr("cacheadmin.rules.targets_for", lambda *_: 1 / 0)
        tenants[0].name = "kept"
        dropped = dropped_by(tenants[0].save)
        assert Tenant.objects.filter(name="kept").exists()
        assert [target for i in dropped for target in i.targets] == [Target("tenant", tenant=ALL)]
        assert "is not known" in caplog.text

    def test_while_a_module_of_rules_cannot_be_imported_each_write_drops_everything(self, tenants, monkeypatch, caplog):
        def broken(module):
            tried.append(module)
            raise InvalidRule(f"{module} cannot be imported.")

        tried = []
        rules.forget_all()
        monkeypatch.setattr(rules.current, "_rules_of", broken)
        monkeypatch.setattr(rules.current, "LOOK_EVERY_SECONDS", 3600.0)
        with captured_invalidations() as dropped:
            tenants[0].save()
            Branch.objects.create(tenant=tenants[0], name="b", city="c")
            sql("UPDATE shop_tenant SET currency = 'EUR'")
        assert [target for i in dropped for target in i.targets] == [Target("tenant", tenant=ALL)] * 3
        assert len(tried) == 1
        assert "shop.cache_rules cannot be imported" in caplog.text
        monkeypatch.undo()
        rules.forget_all()
        assert "inventory" in {rule.name for rule in rules.all_rules()}

    def test_a_parent_whose_deletion_the_database_may_pass_on(self, writing, use_rules, tenants):
        workshop = writing.get_model("Workshop")
        made = workshop.objects.create(tenant=tenants[0], name="w")
        use_rules(Rule("labels", model="writing.Label", tenant="*", targets=["labels"]))
        assert names(dropped_by(made.delete)) == {"labels"}

    def test_a_table_may_have_the_name_of_anything_that_is_kept(self, use_rules, tenants):
        use_rules(TENANTS)
        assert rules.snapshot().seens("deliveries") == ()
        assert dropped_by(tenants[0].save)
