"""SQL read as the server reads it: what ends a statement, what a migration may not hold, what only looks so."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.errors import MigrationError
from runner.migration_files import read
from runner.sql_text import refused, statements
from runner.systems import Sources

REFUSED = {
    "begin": "begin;",
    "begin isolation": "begin isolation level serializable;",
    "start transaction": "start /* a */ transaction read only;",
    "commit": "COMMIT;",
    "commit and chain": "commit and chain;",
    "without a semicolon": "commit",
    "end": "End;",
    "end work": "end work;",
    "rollback": "rollback;",
    "rollback to": "rollback to savepoint a;",
    "abort": "abort;",
    "savepoint": "savepoint a;",
    "release": "release a;",
    "prepare transaction": "prepare transaction 'a';",
    "commit prepared": "commit prepared 'a';",
    "rollback prepared": "rollback prepared 'a';",
    "set transaction": "set transaction isolation level read committed;",
    "set local transaction": "set local transaction read only;",
    "set session transaction": "set session transaction read only;",
    "session characteristics": "set session characteristics as transaction read only;",
    "the setting": "set local transaction_read_only = on;",
    "another setting": "set transaction_isolation to 'serializable';",
    "psql": "\\i other.sql\nselect 1;",
    "psql within a line": "select 1 \\gexec",
    "copy from": "copy t (a, b) from stdin;\n1\t2\n\\.\n",
    "copy to": "copy (select 1) to stdout with (format csv);",
    "after an empty statement": ";;commit;",
    "after a line comment": "-- it's\ncommit;",
    "after a line comment of an old Mac": "-- it's\rcommit;",
    "after a nested comment": "/* /* ' */ ' */commit;",
    "a backslash before a quote is only a backslash": r"select '\'; commit; select '';",
    "a quote escaped in an E string": r"select E'\''; commit; --'",
    "an E string that goes on": "select e'a' -- b\n  '\\''; commit; --'",
    "an identifier that ends like an E string": r"select 1 as ae, xe'\'; commit; select '';",
    "a dollar within a name": "select 1 as a$b$; commit; select 2 as c$b$;",
    "a parameter is no dollar quote": "prepare a as select $1; commit; select $1;",
    "another tag": "do $a$ begin end $b$ $a$; commit; do $b$ begin end $b$;",
    "unicode names": 'select 1 as U&"a;"; commit;',
    "after begin atomic": "create function f() returns int begin atomic select case when true then 1 end; end; commit;",
    "within begin atomic": "create function f() returns int begin atomic select 1; commit; end;",
    "a function named begin": "create function begin() returns int language sql as 'select 1'; commit; end;",
    "within parentheses": "create rule r as on insert to t do also (insert into u values (1); commit);",
    "a copy from a program": "copy t (a) from program 'curl x' where a > 1;",
    "a copy to a program": "copy (select 'stdout' from t) to program $$mail x$$ with (format csv);",
    "a copy to a file": "copy public.t to '/tmp/x';",
    "a copy from a file": "copy t from E'/tmp/stdin';",
    "a copy of a name in Unicode": "copy t from U&'/tmp/x';",
    "a copy in a block": "do $$ begin\nif true then copy t to program 'x'; end if; end $$;",
    "a copy in a block in quotes": "do language plpgsql 'begin copy (select (1)) to ''/x''; end';",
    "a zero byte": "select 1;\0 select 2;",
}

ALLOWED = {
    "constraints": "set constraints all immediate; set constraints a deferred;",
    "settings": "set local lock_timeout = 1; set search_path to a; reset role; set session authorization default;",
    "comments": "-- commit;\n/* commit; /* end; */ rollback; */ select 1;",
    "strings": "select 'commit;', E'\\'; commit;', ' '' ; end;', N'; commit;', U&'; commit;', B'1', X'1f';",
    "a string that goes on": "select 'a'\n'; commit;', e'b'\n'\\'; commit;';",
    "names": 'create table "commit; begin" ("end;" int, "a""; commit" int);',
    "a body": "do $$ begin perform 1; end; $$; do $do$ begin null; end $do$ language plpgsql;",
    "a body that commits": "do $$ begin commit; end $$;",
    "a body as a string": "create function f() returns void language plpgsql as 'begin null; end;';",
    "begin atomic": "create or replace procedure p() begin atomic select 1; select case when true then 1 end; end;",
    "two of them": "create function f() returns int begin atomic select 1; end; create function g() returns int"
                   " begin atomic select 1; end;",
    "a rule of two": "create rule r as on insert to t do also (insert into u values (1); delete from v);",
    "prepared": "prepare a as select 1; execute a; deallocate a;",
    "columns": 'select t.commit, a.end as rollback, "begin" from start as t;',
    "a case": "select case when true then 1 end; select (case 1 when 1 then 2 end);",
    "words of a copy": 'select copy, program from t; alter table copy rename to program; create table "copy to" ();',
    "a copy in a text": "do $$ begin perform 1; raise notice 'copy t to program ''x'''; end $$;",
    "a copy in a routine": "create function f() returns void language plpgsql as $$ begin copy t to '/x'; end $$;",
    "operators": "select 1 ->> 2, a @> b, a #- b -- commit;\n;",
    "nothing": " -- commit\n ; ",
}  # fmt: skip


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_what_would_end_a_transaction_is_refused(text: str) -> None:
    found = refused(f"select 1;\n\n{text}")
    assert found is not None
    assert found.line >= 3


@pytest.mark.parametrize("text", ALLOWED.values(), ids=ALLOWED)
def test_what_only_looks_like_it_is_not(text: str) -> None:
    assert refused(text) is None


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("commit;", 1, "commit"),
        ("select 1;\n-- a\n  /* b\n */\n  start\n transaction;", 5, "start transaction"),
        ("do $$\nbegin\nend\n$$;\nset session characteristics as transaction read only;", 5,
         "set session characteristics"),
        ("create function f() returns int\nbegin atomic\nselect 1;\nrollback;\nend;", 4, "rollback"),
        ("select 'a\nb';\ncommit prepared 'x';", 3, "commit prepared"),
        ("select 1;\ncopy t from program 'x';", 2, "copy t"),
        ("do $$\nbegin\n    perform 1;\n  copy t to '/x';\nend $$;", 4, "copy t"),
    ],
)  # fmt: skip
def test_line_and_words_are_named(text: str, line: int, words: str) -> None:
    found = refused(text)
    assert found is not None
    assert (found.line, found.words) == (line, words)


def test_a_statement_is_what_stands_between_semicolons() -> None:
    assert statements("-- a\nselect 1; ;\n/* b */ select ';' ; -- c\nselect 2 -- d") == [
        "select 1",
        "select ';'",
        "select 2",
    ]
    assert statements(" -- nothing\n") == []


@pytest.mark.parametrize("suffix", [".sql", ".rollback.sql"])
@pytest.mark.parametrize("transactional", ["true", "false"])
def test_a_file_is_refused_by_name_and_line_when_it_is_read(tmp_path: Path, suffix: str, transactional: str) -> None:
    header = f"-- A table.\n-- transactional: {transactional}\n"
    for name in (".sql", ".rollback.sql"):
        (tmp_path / f"0900_own_table{name}").write_text(
            header + "select 1;\n" + ("commit;\n" if name == suffix else "")
        )
    with pytest.raises(
        MigrationError, match=rf"0900_own_table{suffix}, line 4: commit: .*the runner's transaction"
    ) as caught:
        read(Sources((tmp_path,)))
    assert caught.value.exit_code == 1


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "0900_own_table.sql").write_bytes(b"select '\xe4';")
    with pytest.raises(MigrationError, match=r"0900_own_table\.sql is not UTF-8"):
        read(Sources((tmp_path,)))


# What may stand in a text, with everything in it that could deceive a reader.
INSIDE = st.lists(
    st.sampled_from(
        ["'", "\\", '"', "$", "$$", "$a$", ";", "--", "/*", "*/", "\n", " commit ", "end", "(", "e", "a", "\r"]
    ),
    max_size=8,
).map("".join)
PLAIN = INSIDE.map(lambda text: "'" + text.replace("'", "''") + "'")
ESCAPED = INSIDE.map(lambda text: "E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'")
GOES_ON = st.tuples(st.one_of(PLAIN, ESCAPED), INSIDE, st.sampled_from(["\n", " -- ' $$ ;\n ", "\r"])).map(
    lambda parts: parts[0] + parts[2]
    + ("'" + parts[1].replace("\\", "\\\\").replace("'", "''") + "'")
)  # fmt: skip
DOLLAR = st.tuples(INSIDE, st.sampled_from(["", "a", "tag_1", "é"])).map(
    lambda parts: f"${parts[1]}${parts[0].replace('$', '')} ${parts[1]}$"
)
NAMED = INSIDE.map(lambda text: '1 as "' + text.replace('"', '""') + 'x"')
COMMENT = st.one_of(
    st.just(" "),
    INSIDE.map(lambda text: "--" + text.replace("\n", "").replace("\r", "") + "\n"),
    INSIDE.map(lambda text: "/* " + text.replace("/", "") + " /* */ ' */"),
)
SELECT = st.tuples(COMMENT, st.one_of(PLAIN, ESCAPED, GOES_ON, DOLLAR, NAMED, st.just("1 as a$a$")), COMMENT).map(
    lambda parts: f"{parts[0]} select {parts[1]} {parts[2]}"
)
SCRIPT = st.lists(st.one_of(SELECT, SELECT, COMMENT, st.just("commit")), min_size=1, max_size=6)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=SCRIPT)
def test_the_server_takes_a_script_apart_in_the_same_way(conn: psycopg.Connection, parts: list[str]) -> None:
    """As one text it answers as many statements as were found; its transaction stands where nothing was refused."""
    text = ";".join(parts)
    wanted = sum(1 for part in parts if "select" in part or part == "commit")
    assert len(statements(text)) == wanted
    assert (refused(text) is not None) == ("commit" in parts)
    conn.rollback()
    conn.execute("select pg_current_xact_id()")
    cursor = conn.execute(text.encode())
    answers = 1
    while cursor.nextset():
        answers += 1
    assert answers == max(wanted, 1)
    idle = conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert idle == (refused(text) is not None)
