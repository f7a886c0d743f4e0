"""All watches of a community, and the times at which they want to be looked at."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from gateway.core.cells import FAR
from gateway.core.condition import Has, iter_leaves
from gateway.core.evaluator import bind, find_quiet_band
from gateway.core.registry import Key, Registry
from gateway.core.rule import Rule, ScopeKind, Watch, WatchState


class Watches:
    """Watches by (rule, key) and by device, and a heap of (time, rule, key); a device's state that ends stands in it
    with an empty rule. Entries of watches that have moved on are skipped when they come up."""

    def __init__(self) -> None:
        self._by_key: dict[tuple[str, str], Watch] = {}
        self._of_device: dict[str, list[Watch]] = {}
        self._heap: list[tuple[int, str, str]] = []

    def __iter__(self) -> Iterator[Watch]:
        return iter(self._by_key.values())

    def get(self, rule: str, key: str) -> Watch | None:
        """The watch of a rule for a key."""
        return self._by_key.get((rule, key))

    def of_device(self, device: str) -> list[Watch]:
        """The watches that look at a device."""
        return self._of_device.get(device, [])

    def of_rule(self, rule: str) -> list[Watch]:
        """The watches of a rule."""
        return [watch for (id, _), watch in self._by_key.items() if id == rule]

    # --- binding ---------------------------------------------------------------------------------------------

    def rebuild(self, rules: Iterable[Rule], registry: Registry, now: int) -> None:
        """Binds every rule to every key that it can be asked of. All watches are quiet afterwards; see `load`."""
        self._by_key, self._of_device, self._heap = {}, {}, []
        spare = registry.set_windows_aside()
        for rule in rules:
            used = _names_used(rule)
            is_about_silence = rule.is_absence or rule.missing == "clear"
            for key in registry.keys_of(rule):
                self._bind(rule, key, registry, used, is_about_silence=is_about_silence)
        registry.put_windows_back(spare)
        for device in registry.devices.values():
            if device.is_inactive and device.device.state_until is not None:
                heapq.heappush(self._heap, (device.device.state_until, "", device.device.id))

        for silence in registry.silences.values():
            self.note_edge(silence.id, silence.since, silence.until, now)

    def note_edge(self, id: str, since: int, until: int, now: int) -> None:
        """Notes when a silence begins and ends."""
        for time in (since, until):
            if time > now:
                heapq.heappush(self._heap, (time, "", id))

    def _bind(self, rule: Rule, key: Key, registry: Registry, used: Iterable[str], *, is_about_silence: bool) -> None:
        scope = registry.scope_of(key)
        clear = bind(rule.clear, scope) if rule.clear is not None else None
        watch = Watch(
            rule, key.key, key.place, bind(rule.when, scope), clear, tuple(device.heard for device in key.devices)
        )
        self._by_key[rule.id, key.key] = watch
        for device in key.devices:
            self._of_device.setdefault(device.device.id, []).append(watch)
            for name in used:
                if name in device.cells:
                    is_single = rule.scope is ScopeKind.DEVICE
                    device.cells[name].add(watch, find_quiet_band(rule.when, name, scope) if is_single else None)
                if name in device.events:
                    device.events[name].watches.append(watch)
            if is_about_silence:
                device.absence.append(watch)

    def dump(self) -> list[WatchState]:
        """The state of every watch that has one."""
        kept = (watch for watch in self if watch.is_busy or watch.wake_at is not None or watch.note or watch.cleared_at)
        return [state for state in map(Watch.dump, kept) if state.says_anything]

    def load(self, states: Iterable[WatchState]) -> Iterator[Watch]:
        """Gives states back to the watches that still are there; yields those that are not quiet."""
        for state in states:
            watch = self._by_key.get((state.rule, state.key))
            if watch is None:
                continue
            watch.load(state)
            if state.wake_at is not None:
                self._note(watch, state.wake_at)
            if watch.is_busy:
                for cell in watch.cells:
                    cell.is_busy = True
                yield watch

    # --- time ------------------------------------------------------------------------------------------------

    def schedule(self, watch: Watch, now: int) -> None:
        """Notes when the watch must be looked at though nothing arrives."""
        due = watch.due(now)
        if due is not None and (watch.wake_at is None or due < watch.wake_at):
            self._note(watch, due)

    def _note(self, watch: Watch, due: int) -> None:
        watch.wake_at = due
        heapq.heappush(self._heap, (due, watch.rule.id, watch.key))

    def has_due_before(self, time: int) -> bool:
        """Whether anything may want to be looked at before that time."""
        return bool(self._heap) and self._heap[0][0] < time

    def pop_due(self, until: int) -> tuple[int, Watch | str] | None:
        """The first thing due up to ``until``, with its time: a watch, or the id of a device whose state ends."""
        while (due := self._skip_stale(until)) is not None:
            heapq.heappop(self._heap)
            time, rule, key = due
            if not rule:
                return time, key
            watch = self._by_key[rule, key]
            watch.wake_at = None
            return time, watch
        return None

    def next_due(self) -> int | None:
        """When something is due next."""
        due = self._skip_stale(FAR)
        return None if due is None else due[0]

    def has_due(self, until: int) -> bool:
        """Whether anything is due up to ``until``."""
        return self._skip_stale(until) is not None

    def _skip_stale(self, until: int) -> tuple[int, str, str] | None:
        """The first entry up to ``until`` that stands. A watch may have put its time off since it was noted (a device
        was heard of, a hold lapsed): that needs no tick, only a new note. Whatever brings a time forward notes it at
        once, so that it makes no difference when, or how often, somebody looks."""
        while self._heap and self._heap[0][0] <= until:
            time, rule, key = first = self._heap[0]
            if not rule:
                return first
            watch = self._by_key.get((rule, key))
            if watch is None or watch.wake_at != time:
                heapq.heappop(self._heap)
                continue
            due = watch.due(time - 1)
            if due == time:
                return first
            heapq.heappop(self._heap)
            watch.wake_at = None
            if due is not None:
                self._note(watch, due)
        return None


def _names_used(rule: Rule) -> list[str]:
    """The readings and events that the rule looks at, each once."""
    conditions = [rule.when] if rule.clear is None else [rule.when, rule.clear]
    leaves = (leaf for condition in conditions for _, leaf in iter_leaves(condition))
    return list(dict.fromkeys(leaf.name for leaf in leaves if not isinstance(leaf, Has)))
