"""The 59 acceptance cases of the specification (§14), each a test named by its id, on real nodes: `make acceptance`.

    test_mirror_*.py   M1 to M24, with M1b        test_farm.py          F1 to F14
    test_checkers.py   C1 to C12                  test_installation.py  I1 to I8

A test carries `@case("M3")`. Where this product differs from the reference on purpose, the mark says how
(`@case("M13", ours="...")`), and the test shows ours. A case whose feature does not exist fails with `NotBuilt`, which
names what is missing; nothing is skipped. `verdicts.py` makes the table and `build/reports/acceptance.json` of it.

The cases share one cluster and few modules (`pair.py`, `checked.py`, `shared.py`); they are not part of `make test`, whose
own tests in `tests/system` go deeper where the specification's table is brief.
"""
