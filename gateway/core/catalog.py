"""All profiles, rules, categories and the policy together: checked against each other once, then never changed.

`build_catalog` is pure: it takes the texts of the files and gives a catalog, or every problem of all of them. What one
broken file hides is not reported a second time in the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.authoring import (
    CategoriesForm,
    GovernanceForm,
    HolidaysForm,
    PlatformForm,
    ProfileForm,
    RuleForm,
    RuleTestForm,
    VocabularyForm,
    read_form,
)
from gateway.core.document import Document, Problem, read_document
from gateway.core.policy import PlatformMapping, Policy
from gateway.core.profile import Profile
from gateway.core.profile_file import Vocabulary, make_profile, make_vocabulary
from gateway.core.rule import Rule, Status
from gateway.core.rule_file import (
    Category,
    Shelf,
    check_rule,
    make_calendar,
    make_categories,
    make_mapping,
    make_policy,
    make_rule,
)
from gateway.core.trial import RuleTest, make_test
from gateway.core.worktime import Calendar
from gateway.errors import GatewayError

PROFILES: Final = "device_profiles"
RULES: Final = "rules"
VOCABULARY: Final = f"{PROFILES}/vocabulary.yaml"
CATEGORIES: Final = f"{RULES}/categories.yaml"
GOVERNANCE: Final = f"{RULES}/governance.yaml"
HOLIDAYS: Final = f"{RULES}/holidays.yaml"
PLATFORM: Final = f"{RULES}/platform.yaml"
_SINGLE: Final = (VOCABULARY, CATEGORIES, GOVERNANCE, HOLIDAYS, PLATFORM)
TEST_SUFFIX: Final = ".test.yaml"


class CatalogError(GatewayError):
    """Profiles or rules are at fault. ``problems`` holds all that were found, by file and line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems), key=lambda p: (p.file, p.line, p.code, p.what)))
        first = self.problems[0]
        more = f" (and {len(self.problems) - 1} more: run python -m gateway check)" if len(self.problems) > 1 else ""
        super().__init__("bad-catalog", first.what + more, f"{first.file}:{first.line}", first.mend)


class Catalog(Struct, frozen=True):
    """What the engine judges by. ``rules`` are ordered by id; ``tests`` by rule id; ``files`` are the texts that it was
    made of, by path, and ``hash`` (16 hex digits) is theirs: the same files give the same hash anywhere."""

    profiles: Mapping[str, Profile]
    rules: tuple[Rule, ...]
    categories: Mapping[str, Category]
    bodies: Mapping[str, Mapping[str, str]]
    vocabulary: Vocabulary
    policy: Policy
    calendar: Calendar
    mapping: PlatformMapping
    tests: Mapping[str, RuleTest]
    hash: str
    files: Mapping[str, str]

    def rule(self, id: str) -> Rule | None:
        return next((rule for rule in self.rules if rule.id == id), None)


def hash_files(files: Mapping[str, str]) -> str:
    """The same for the same paths and texts, whatever their order; 16 hex digits, as every journal row carries it."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(files):
        for part in (path.encode(), files[path].encode()):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return digest.hexdigest()


def build_catalog(files: Mapping[str, str]) -> Catalog:
    """The catalog of these files: path (with ``device_profiles/`` or ``rules/`` in front) → text.

    Raises CatalogError with every problem of every file."""
    return _Builder(files).build()


def with_rule(catalog: Catalog, file: str, text: str) -> tuple[Catalog, Rule]:
    """The catalog with one rule more that stands in no folder yet, or with it in place of the one of its id; and that
    rule. It is read as every rule file is, and judges as an active one whatever its status says: it is there to be
    tried. ``file`` is what its problems call it. Raises CatalogError with every problem."""
    builder = _Builder({})
    builder.profiles, builder.vocabulary = dict(catalog.profiles), catalog.vocabulary
    builder.categories, builder.calendar = dict(catalog.categories), catalog.calendar
    document, problems = read_document(file, text)
    builder.problems.extend(problems)
    form = builder.read_rule_form(document) if document is not None else None
    rule = builder.make_rule(document, form) if document is not None and form is not None else None
    if builder.problems or rule is None:
        raise CatalogError(builder.problems)
    rule = replace(rule, status=Status.ACTIVE)
    files = {**catalog.files, _rule_path(rule.id): text}
    rules = {**{known.id: known for known in catalog.rules}, rule.id: rule}
    made = replace(
        catalog,
        rules=tuple(rules[id] for id in sorted(rules)),
        hash=hash_files(files),
        files=MappingProxyType(files),
    )
    return made, rule


class _Builder:
    def __init__(self, files: Mapping[str, str]) -> None:
        self.files = dict(files)
        self.problems: list[Problem] = []
        self.documents: dict[str, Document] = {}
        self.vocabulary: Vocabulary | None = None
        self.categories: dict[str, Category] | None = None
        self.bodies: dict[str, dict[str, str]] = {}
        self.profiles: dict[str, Profile] = {}
        self.are_profiles_whole = True
        self.policy: Policy | None = None
        self.calendar: Calendar | None = None
        self.mapping: PlatformMapping | None = None

    def build(self) -> Catalog:
        for path in sorted(self.files):
            if not self._is_placed(path):
                continue
            document, problems = read_document(path, self.files[path])
            self.problems.extend(problems)
            if document is not None:
                self.documents[path] = document
        self._read_vocabulary()
        self._read_categories()
        self._read_governance()
        self._read_mapping()
        self._read_profiles()
        rules, tests = self._read_rules()
        vocabulary, policy, calendar, mapping = self.vocabulary, self.policy, self.calendar, self.mapping
        if self.problems or vocabulary is None or policy is None or calendar is None or mapping is None:
            raise CatalogError(self.problems)
        return Catalog(
            MappingProxyType(self.profiles),
            tuple(rules[id] for id in sorted(rules)),
            MappingProxyType(self.categories or {}),
            MappingProxyType(self.bodies),
            vocabulary,
            policy,
            calendar,
            mapping,
            MappingProxyType(tests),
            hash_files(self.files),
            MappingProxyType(self.files),
        )

    def _is_placed(self, path: str) -> bool:
        """A file where nobody would read it is a problem, not a file without effect."""
        parts = path.split("/")
        if not path.endswith(".yaml"):
            self._add(path, "wrong-place", "the file does not end in .yaml", "rename it to end in .yaml")
            return False
        if path in _SINGLE:
            return True
        if len(parts) == 3 and parts[0] in (PROFILES, RULES):
            return True
        mend = f"put it at {PROFILES}/<kind>/<model>.yaml or {RULES}/<domain>/<rule>.yaml"
        self._add(path, "wrong-place", "no profile and no rule is looked for here", mend)
        return False

    def _add(self, file: str, code: str, what: str, mend: str, line: int = 1) -> None:
        self.problems.append(Problem(file, line, code, what, mend))

    def _read_vocabulary(self) -> None:
        document = self._single(VOCABULARY, "kinds and quantities")
        if document is None:
            return
        form, problems = read_form(document, VocabularyForm)
        self.problems.extend(problems)
        if form is not None:
            self.vocabulary = make_vocabulary(document, form, self.problems)

    def _read_categories(self) -> None:
        document = self._single(CATEGORIES, "bodies and categories")
        if document is None:
            return
        form, problems = read_form(document, CategoriesForm)
        self.problems.extend(problems)
        if form is not None:
            self.categories, self.bodies = make_categories(document, form, self.problems)

    def _read_governance(self) -> None:
        document = self._single(GOVERNANCE, "limits, reminders and what a storm is")
        days = self._single(HOLIDAYS, "the holidays and make-up days (python -m gateway holidays)")
        form, problems = read_form(document, GovernanceForm) if document is not None else (None, [])
        days_form, more = read_form(days, HolidaysForm) if days is not None else (None, [])
        self.problems.extend([*problems, *more])
        if document is not None and form is not None:
            self.policy = make_policy(document, form, self.problems)
            if days is not None and days_form is not None:
                self.calendar = make_calendar(days, days_form, tuple(form.working_hours), self.problems)

    def _read_mapping(self) -> None:
        document = self._single(PLATFORM, "the central platform's codes and words")
        form, problems = read_form(document, PlatformForm) if document is not None else (None, [])
        self.problems.extend(problems)
        if document is not None and form is not None:
            self.mapping = make_mapping(document, form, self.categories, self.problems)

    def _single(self, path: str, content: str) -> Document | None:
        if path not in self.files:
            self._add(path, "missing-file", "the file is missing", f"write it, with {content}")
        return self.documents.get(path)

    def _read_profiles(self) -> None:
        paths = [path for path in sorted(self.files) if path.startswith(f"{PROFILES}/") and path != VOCABULARY]
        for path in paths:
            document = self.documents.get(path)
            profile = self._read_profile(document) if document is not None else None
            if profile is None:
                self.are_profiles_whole = False
            elif profile.id in self.profiles:
                what = f"the profile {profile.id} is there twice"
                self._add(path, "duplicate-id", what, "rename one of the files and its id")
            else:
                self.profiles[profile.id] = profile
        self._compare_readings()

    def _read_profile(self, document: Document) -> Profile | None:
        form, problems = read_form(document, ProfileForm)
        self.problems.extend(problems)
        if form is None:
            return None
        folder, name = _split(document.file)
        if form.id != name:
            what = f"id is {form.id}, and the file is called {name}"
            self.problems.append(document.problem(("id",), "id-differs", what, f"write id: {name}, or rename the file"))
        if form.kind != folder:
            what = f"kind is {form.kind}, and the folder is called {folder}"
            mend = f"write kind: {folder}, or move the file"
            self.problems.append(document.problem(("kind",), "kind-differs", what, mend))
        return make_profile(document, form, self.vocabulary, self.problems)

    def _compare_readings(self) -> None:
        """One name means one thing in all profiles: a rule without ``kinds`` looks at all of them."""
        first: dict[str, tuple[str, str, str | None]] = {}
        for profile in self.profiles.values():
            for spec in profile.readings.values():
                type = "number" if spec.type == "integer" else spec.type
                owner, known_type, known_quantity = first.setdefault(spec.id, (profile.id, type, spec.quantity))
                if (type, spec.quantity) == (known_type, known_quantity):
                    continue
                what = (
                    f"{spec.id} is {type} {spec.quantity or ''} here".replace("  ", " ")
                    + f", and {known_type} {known_quantity or ''} in {owner}".rstrip()
                )
                document = self.documents[f"{PROFILES}/{profile.kind}/{profile.id}.yaml"]
                mend = "give one of them another name: a rule must know what the name means"
                self.problems.append(document.problem(("readings", spec.id), "reading-differs", what, mend))

    def _read_rules(self) -> tuple[dict[str, Rule], dict[str, RuleTest]]:
        paths = [path for path in sorted(self.files) if path.startswith(f"{RULES}/") and path not in _SINGLE]
        rules: dict[str, Rule] = {}
        sound: set[str] = set()
        for path in paths:
            document = self.documents.get(path)
            if path.endswith(TEST_SUFFIX) or document is None:
                continue
            before = len(self.problems)
            rule = self._read_rule(document)
            if rule is not None:
                rules[rule.id] = rule
                if len(self.problems) == before:
                    sound.add(path)
        self._check_renames(rules)
        tests: dict[str, RuleTest] = {}
        for path in paths:
            if path.endswith(TEST_SUFFIX):
                self._read_test(path, rules, sound, tests)
        for path in paths:
            if path in sound:
                self._require_test(path, rules)
        return rules, tests

    def _read_rule(self, document: Document) -> Rule | None:
        form = self.read_rule_form(document)
        if form is None:
            return None
        expected = _rule_id(document.file)
        if form.id != expected:
            what = f"id is {form.id}, and the file is {expected} by its place"
            self.problems.append(
                document.problem(("id",), "id-differs", what, f"write id: {expected}, or move the file")
            )
            return None
        return self.make_rule(document, form)

    def read_rule_form(self, document: Document) -> RuleForm | None:
        """What a rule's file says; None where it is at fault."""
        form, problems = read_form(document, RuleForm)
        self.problems.extend(problems)
        return form

    def make_rule(self, document: Document, form: RuleForm) -> Rule | None:
        """The rule of a form, held against the profiles."""
        rule = make_rule(document, form, self.categories, self.problems)
        if rule is not None and rule.schedule is not None and rule.schedule.only is not None:
            rule = replace(rule, schedule=replace(rule.schedule, calendar=self.calendar))
        if rule is None or self.vocabulary is None:
            return rule
        shelf = Shelf(self.profiles, self.vocabulary.kinds, self.are_profiles_whole)
        check_rule(document, rule, shelf, self.problems)
        return rule

    def _check_renames(self, rules: Mapping[str, Rule]) -> None:
        taken: dict[str, str] = {}
        for rule in rules.values():
            if rule.was is None:
                continue
            document = self.documents[_rule_path(rule.id)]
            if rule.was in rules:
                what = f"was: names {rule.was}, which is still a rule"
                self.problems.append(document.problem(("was",), "was-taken", what, "remove was:, or the other rule"))
            elif rule.was in taken:
                what = f"was: names {rule.was}, and so does {taken[rule.was]}"
                mend = "only one rule can take its place: remove was: from the other"
                self.problems.append(document.problem(("was",), "was-taken", what, mend))
            taken.setdefault(rule.was, rule.id)

    def _read_test(self, path: str, rules: Mapping[str, Rule], sound: set[str], tests: dict[str, RuleTest]) -> None:
        rule_path = path.removesuffix(TEST_SUFFIX) + ".yaml"
        if rule_path not in self.files:
            what = f"there is no rule {_rule_id(rule_path)} to test"
            self._add(path, "test-without-rule", what, f"write {rule_path}, or delete this file")
            return
        document = self.documents.get(path)
        if document is None:
            return
        form, problems = read_form(document, RuleTestForm)
        self.problems.extend(problems)
        rule = rules.get(_rule_id(rule_path))
        # A test of a rule that is at fault itself, or of profiles that are, would only repeat that.
        if form is not None and rule is not None and rule_path in sound and self.are_profiles_whole:
            tests[rule.id] = make_test(document, form, rule, self.profiles, self.problems)

    def _require_test(self, path: str, rules: Mapping[str, Rule]) -> None:
        test = path.removesuffix(".yaml") + TEST_SUFFIX
        rule = rules[_rule_id(path)]
        if rule.status is Status.ACTIVE and test not in self.files:
            what = "the rule is active and has no test"
            mend = f"write {test}, or status: draft or shadow"
            self.problems.append(self.documents[path].problem(("status",), "no-test", what, mend))


def _split(path: str) -> tuple[str, str]:
    """``rules/fire/smoke.yaml`` → ("fire", "smoke")."""
    _, folder, name = path.split("/")
    return folder, name.removesuffix(".yaml")


def _rule_id(path: str) -> str:
    return ".".join(_split(path))


def _rule_path(id: str) -> str:
    domain, _, name = id.partition(".")
    return f"{RULES}/{domain}/{name}.yaml"


# --- what changed -------------------------------------------------------------------------------------------


class ChangeKind(StrEnum):
    """What a new catalog does to a rule. ``rejudged``: other findings, so that a swap begins again from the last
    values; ``restated``: only its words, category, responses or sources; ``status`` alone: how far it may go."""

    ADDED = "added"
    REMOVED = "removed"
    RENAMED = "renamed"
    REJUDGED = "rejudged"
    STATUS = "status"
    RESTATED = "restated"


class Change(Struct, frozen=True):
    """One change of one rule. ``was`` is its former id, where it had another."""

    rule: str
    kind: ChangeKind
    was: str | None = None


def compare(old: Catalog, new: Catalog) -> tuple[Change, ...]:
    """What is different for each rule, by id. A renamed rule may be rejudged or restated as well."""
    before = {rule.id: rule for rule in old.rules}
    changes: list[Change] = []
    met: set[str] = set()
    for rule in new.rules:
        is_renamed = rule.was is not None and rule.was in before and rule.id not in before
        former = before.get(rule.was or "") if is_renamed else before.get(rule.id)
        if former is None:
            changes.append(Change(rule.id, ChangeKind.ADDED))
            continue
        met.add(former.id)
        was = former.id if is_renamed else None
        if is_renamed:
            changes.append(Change(rule.id, ChangeKind.RENAMED, was))
        if not rule.judges_like(former):
            changes.append(Change(rule.id, ChangeKind.REJUDGED, was))
        if rule.status is not former.status:
            changes.append(Change(rule.id, ChangeKind.STATUS, was))
        if _statement(rule) != _statement(former):
            changes.append(Change(rule.id, ChangeKind.RESTATED, was))
    changes.extend(Change(id, ChangeKind.REMOVED) for id in before if id not in met)
    return tuple(sorted(changes, key=lambda change: (change.rule, change.kind)))


def _statement(rule: Rule) -> tuple[object, ...]:
    """What a rule says and does without judging by it."""
    return (
        rule.title,
        rule.sort,
        rule.cause,
        rule.at,
        rule.category,
        rule.level,
        rule.incident_title,
        rule.respond,
        rule.offline,
        rule.false_alarms,
        rule.legal,
        rule.sources,
    )
