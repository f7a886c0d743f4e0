"""Models' secrets and awaited devices in the ledger's database: sealed, granted once; on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading

import pytest
from msgspec.structs import replace

from gateway.adapters.accounts import SqlAccounts
from gateway.adapters.ledger import SqlLedger
from gateway.adapters.passwords import is_password
from gateway.adapters.products import SqlProducts
from gateway.runtime.accounts import AuditFilter, Deed, SealBroken
from gateway.runtime.products import Awaited, Product
from tests.ports.ledger_conformance import NOW, select

ONE = Awaited("sn-7", "sn/7", "c001", "fixed-sos", NOW + 100)


def deed(at: int = NOW, what: str = "product.make") -> Deed:
    return Deed(at, "wang", what, "fixed-sos", "10.0.0.1")


@pytest.fixture
def products(ledger: SqlLedger) -> SqlProducts:
    return SqlProducts(ledger.database, b"k" * 32)


def test_a_models_secret_is_sealed_renewed_with_an_overlap_and_switched(
    ledger: SqlLedger, products: SqlProducts
) -> None:
    assert products.keys("fixed-sos", NOW) == []
    assert products.put("fixed-sos", "first", "k1", 0, deed())
    assert products.products() == [Product("fixed-sos", NOW, NOW)]
    [[sealed]] = select(ledger, "SELECT secret FROM product")
    assert b"first" not in bytes(sealed)
    with pytest.raises(SealBroken):
        SqlProducts(ledger.database, b"x" * 32).keys("fixed-sos", NOW)
    assert not products.put("fixed-sos", "once more", "k1", NOW + 50, deed(NOW + 1))
    assert products.put("fixed-sos", "second", "k2", NOW + 50, deed(NOW + 1))
    assert products.renewal("fixed-sos") == "k2"
    assert products.keys("fixed-sos", NOW + 49) == [b"second", b"first"]
    assert products.keys("fixed-sos", NOW + 50) == [b"second"]
    products.switch("fixed-sos", NOW + 60, deed(NOW + 60))
    assert products.keys("fixed-sos", NOW + 60) == []
    products.switch("fixed-sos", None, deed(NOW + 61))
    assert products.product("fixed-sos") == Product("fixed-sos", NOW, NOW + 1, NOW + 50)


def test_a_password_is_granted_once_in_its_time_and_every_other_ask_is_counted(
    ledger: SqlLedger, products: SqlProducts
) -> None:
    products.expect([ONE])
    assert products.grant("sn-7", "another-model", NOW, deed(NOW)) == ""
    password = products.grant("sn-7", "fixed-sos", NOW + 1, deed(NOW + 1, "device.provision"))
    assert is_password(password, ledger.credentials()["sn-7"])
    assert products.grant("sn-7", "fixed-sos", NOW + 2, deed(NOW + 2)) == ""
    known = products.awaited("sn-7")
    assert known is not None
    assert (known.granted_at, known.refused, known.refused_at, known.refused_from) == (NOW + 1, 2, NOW + 2, "10.0.0.1")
    assert products.list_refused("c001", NOW + 2) == [known]
    assert products.list_refused("c001", NOW + 3) == products.list_refused("c002", 0) == []
    assert is_password(password, ledger.credentials()["sn-7"]), "a second ask changes nothing"
    outcomes = [row.deed.outcome for row in SqlAccounts(ledger.database).find_audit(AuditFilter(), 9)]
    assert outcomes == ["refused: not-granted", "done", "refused: not-granted"]
    products.expect([ONE])
    assert products.awaited("sn-7") == known
    products.expect([ONE], again=True)
    assert (products.awaited("sn-7"), ledger.credentials()) == (ONE, {})
    assert products.grant("sn-7", "fixed-sos", NOW + 100, deed(NOW + 100)) == ""
    products.forget("sn-7")
    assert products.awaited("sn-7") is None
    assert products.grant("sn-7", "fixed-sos", NOW, deed()) == ""


def test_one_code_is_one_devices(products: SqlProducts) -> None:
    products.expect([ONE, replace(ONE, device="sn-8")])
    assert products.asking("sn/7") == ONE
    assert products.asking("sn-7") is None
    assert products.awaited("sn-8") is None


def test_of_many_that_ask_at_once_one_is_granted(products: SqlProducts) -> None:
    products.expect([ONE])
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(products.grant("sn-7", "fixed-sos", NOW, deed())))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(bool(password) for password in found) == 1
