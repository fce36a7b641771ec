"""Layer 4: whether return addresses are signed where rows say so (pointer authentication).

`Proof` says where the return address is; this says whether it carries an authentication code there. As there, every
edge of the image is checked by itself, and the functions with one that does not hold are analysed exactly. Every
place starts plain or empty on entry, so what is left after that is known.

Source:
    DWARF for the Arm 64-bit Architecture (AADWARF64), section 4.4 (RA_SIGN_STATE); Arm ARM (DDI 0487), PACIASP,
    AUTIASP and their kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Mask, Row, Row32
from surefoot.isa.effects import NO_REG, Effects, Flow, LrEffect, PauthKey, Store, effects
from surefoot.metadata.rules import CfaBase, RaRule, RuleTable
from surefoot.proof.entries import with_relatives
from surefoot.proof.graph import Graph, build_graph, with_tables
from surefoot.proof.jumps import resolve_jumps
from surefoot.proof.prove import Outline, Proof
from surefoot.proof.verdicts import Verdict

__all__ = ["Signing", "check_signing"]

_PLAIN, _SIGNED, _OTHER, _ANY = 1, 2, 4, 7
"""What a place may hold, as bits: the return address, the signed one, something else."""
_LR, _SLOT, _SHADOW = range(3)
"""The places: x30, the words of the frame that x30 was stored to, the newest entry of the shadow call stack."""
_SHADOW_SP: Final = 18
_SIGN: Final = (LrEffect.SIGN, LrEffect.SIGN_PC)
_AUTH: Final = (LrEffect.AUTH, LrEffect.AUTH_PC)
_MAX_ROUNDS: Final = 1_000_000


@dataclass(frozen=True)
class Signing:
    """What is known of the claims of proved rows.

    Attributes:
        wrong: (w,) int64, ascending, proved instructions (of the proof) before which the return address is signed
            though the row says that it is not, or the other way round.
        open: (o,) int64, ascending, proved instructions of which that is not known.
        claimed: how many proved instructions have a row that says that it is signed.
    """

    wrong: Row
    open: Row
    claimed: int


def check_signing(outline: Outline, proof: Proof) -> Signing:
    """Check what rows say of signing at every proved instruction.

    Args:
        outline: of the image.
        proof: where return addresses are.
    """
    domain = outline.domain
    signed = domain.rules.ra_signed[domain.row]
    proven = proof.verdicts == Verdict.PROVEN
    claimed = int(np.count_nonzero(signed & proven))
    funcs = np.flatnonzero(_suspects(outline, proven) & domain.usable)
    unfaithful = np.zeros(domain.usable.size, dtype=np.bool_)
    graph = build_graph(domain, outline.found, outline.entries, outline.code, outline.on, funcs, unfaithful)
    tables, _ = resolve_jumps(graph, outline.entries, outline.code)
    graph = with_tables(graph, outline.entries.fragment, tables)
    held = _analyse(graph, outline, proven[graph.at])
    rule = domain.rules.ra_rule[graph.row]
    place = np.where(rule == RaRule.IN_LR, held[:, _LR], held[:, _SLOT])
    wanted = np.where(signed[graph.at], np.uint8(_SIGNED), np.uint8(_PLAIN))
    asked = proven[graph.at]
    no = asked & (place != 0) & (place & (wanted | np.uint8(_OTHER)) == 0)
    return Signing(graph.at[no], graph.at[asked & ~no & (place != wanted)], claimed)


def _suspects(outline: Outline, proven: Mask) -> Mask:
    """(f,) bool: functions in which a claim does not follow from the one before it by itself."""
    domain, found, on = outline.domain, outline.found, outline.on
    rules = domain.rules
    kind = rules.ra_rule.astype(np.int64) * 2 + rules.ra_signed
    claim = (kind << np.int64(32)) + np.where(rules.ra_rule == RaRule.AT_CFA, rules.ra_off.astype(np.int64), 0)
    last = np.zeros(len(domain), dtype=np.bool_)
    last[domain.first[1:][np.diff(domain.first) > 0] - 1] = True
    row = domain.row
    # Rows change behind an instruction that has nothing to do with x30.
    bound = np.flatnonzero(row[1:] != row[:-1])
    bound = bound[on[bound] & ~last[bound]]
    bound = bound[claim[row[bound]] != claim[row[bound + 1]]]
    acting = np.zeros(len(domain), dtype=np.bool_)
    touches = (found.effects.lr != LrEffect.KEEP) | (found.effects.lr_at >= 0)
    acts = found.acts[touches]
    acting[acts] = True
    late = bound[~acting[bound]]
    bad = [late[~_follows_late(outline, late, acts, found.effects.take(np.flatnonzero(touches)))]]
    through = np.flatnonzero(on[acts] & ~last[acts])
    bad.append(acts[through][~_follows(outline, acts[through], found.effects.take(np.flatnonzero(touches)[through]))])
    bad += _jumping(outline, claim)
    called = outline.entries.called
    bad.append(called[rules.ra_signed[row[called]] | (rules.ra_rule[row[called]] != RaRule.IN_LR)])
    bad.append(outline.entries.blind)
    bad.append(_leaving(outline))
    inner = (found.call_at >= 0) & ~domain.is_start(found.call_at)
    bad.append(found.calls[inner & (domain.func(np.maximum(found.call_at, 0)) == domain.func(found.calls))])
    suspect = np.zeros(domain.usable.size, dtype=np.bool_)
    suspect[domain.func(np.concatenate(bad))] = True
    low = domain.first[:-1]
    some = np.diff(domain.first) > 0
    whole = np.ones(domain.usable.size, dtype=np.bool_)
    whole[some] = np.logical_and.reduceat(proven, low[some]) if proven.size else whole[some]
    return with_relatives(suspect | ~whole, outline.entries.ties)


def _follows_late(outline: Outline, at: Row, acts: Row, does: Effects) -> Mask:
    """(k,) bool: the claim changes some instructions behind the load or the store of x30 that it follows from.

    Args:
        outline: of the image.
        at: (k,) int64, the instructions behind which it changes, none in `acts`.
        acts: (a,) int64, ascending, instructions that have to do with x30.
        does: what they do.
    """
    domain, found, code = outline.domain, outline.found, outline.code
    into = np.zeros(len(domain) + 1, dtype=np.int32)
    found_to = domain.find(np.concatenate([found.variant_to, code.fixups]))
    goals = np.concatenate([found.jump_at, found.call_at, found_to])
    for some in (goals[goals >= 0], outline.entries.called, outline.entries.blind):
        into[some + 1] = 1
    entered = np.cumsum(into)
    last = np.maximum(np.searchsorted(acts, at) - 1, 0)
    if not acts.size:
        return np.zeros(at.shape, dtype=np.bool_)
    since = acts[last]
    straight = (since < at) & (domain.func(since) == domain.func(at)) & (entered[at + 2] == entered[since + 1])
    rules, row = domain.rules, domain.row
    origin, before, behind = row[since], row[at], row[at + 1]
    kept = (rules.ra_signed[origin] == rules.ra_signed[before]) & (rules.ra_signed[before] == rules.ra_signed[behind])
    from_slot = (rules.ra_rule[origin] == RaRule.AT_CFA) & (rules.ra_rule[before] == RaRule.AT_CFA)
    from_lr = (rules.ra_rule[origin] == RaRule.IN_LR) & (rules.ra_rule[before] == RaRule.IN_LR)
    how, stored = does.lr[last], does.lr_at[last] >= 0
    loads = (how == LrEffect.LOAD) & (does.lr_reg[last] != _SHADOW_SP) & from_slot
    stores = (how == LrEffect.KEEP) & stored & from_lr
    loads &= rules.ra_rule[behind] == RaRule.IN_LR
    stores &= rules.ra_rule[behind] == RaRule.AT_CFA
    good: Mask = straight & kept & (loads | stores)
    return good


def _misses_slot(rules: RuleTable, row: Row | Row32, does: Effects) -> Mask:
    """(k,) bool: x30 is not stored to the word that the row says the return address is in.

    Stores through computed addresses are trusted not to hit it (`surefoot.proof.assumptions`).
    """
    base = rules.cfa_base[row]
    known = (does.store == Store.SP) & (base == CfaBase.SP) | (does.store == Store.FP) & (base == CfaBase.FP)
    known &= ~does.store_unknown
    place = does.store_off + does.lr_at - rules.cfa_off[row]
    in_slot = rules.ra_rule[row] == RaRule.AT_CFA
    found: Mask = in_slot & ((does.store == Store.ELSEWHERE) | known & (place != rules.ra_off[row]))
    return found


def _follows(outline: Outline, at: Row, does: Effects) -> Mask:
    """(k,) bool: the claim behind an instruction that has to do with x30 follows from the one before it."""
    rules, row = outline.domain.rules, outline.domain.row
    a, b = row[at], row[at + 1]
    in_lr = rules.ra_rule[a] == RaRule.IN_LR, rules.ra_rule[b] == RaRule.IN_LR
    in_slot = rules.ra_rule[a] == RaRule.AT_CFA, rules.ra_rule[b] == RaRule.AT_CFA
    before, behind = rules.ra_signed[a], rules.ra_signed[b]
    kept = before == behind
    stays = in_slot[0] & in_slot[1] & kept & (rules.ra_off[a] == rules.ra_off[b])
    stored = (does.lr_at >= 0) & ~_misses_slot(rules, a, does)
    keeps = does.lr == LrEffect.KEEP
    good: Mask = stays & ~stored
    good |= keeps & in_lr[0] & kept & (in_lr[1] | in_slot[1] & stored)
    both = in_lr[0] & in_lr[1]
    good |= np.isin(does.lr, _SIGN) & both & ~before & behind
    good |= np.isin(does.lr, _AUTH) & both & before & ~behind
    good |= (does.lr == LrEffect.STRIP) & both & ~behind
    good |= (does.lr == LrEffect.LOAD) & (does.lr_reg != _SHADOW_SP) & in_slot[0] & in_lr[1] & kept
    return good


def _jumping(outline: Outline, claim: NDArray[np.int64]) -> list[Row]:
    """Give what branches, faults and variants lead from one claim to another."""
    domain, found, code = outline.domain, outline.found, outline.code
    fault = domain.find(code.faults)
    branching = np.isin(found.variants.flow, (Flow.JUMP, Flow.COND))
    inside = fault >= 0
    source = np.concatenate([found.jumps, found.sites[branching], fault[inside]])
    goal = np.concatenate([found.jump_at, domain.find(found.variant_to[branching]), domain.find(code.fixups[inside])])
    func = domain.func(np.maximum(goal, 0))
    tail = (goal < 0) | (domain.is_start(goal) & ~outline.entries.fragment[func] & (func != domain.func(source)))
    row = domain.row
    same = claim[row[source]] == claim[row[np.maximum(goal, 0)]]
    plain = (domain.rules.ra_rule[row[source]] == RaRule.IN_LR) & ~domain.rules.ra_signed[row[source]]
    bad = [source[np.where(tail, ~plain, ~same)]]
    odd = (found.variants.lr != LrEffect.KEEP) | (found.variants.lr_at >= 0)
    last = np.isin(found.sites, domain.first[1:] - 1)
    behind = np.minimum(found.sites + 1, max(len(domain) - 1, 0))
    odd |= found.variant_on & ~last & (claim[row[found.sites]] != claim[row[behind]])
    return [*bad, found.sites[odd]]


def _leaving(outline: Outline) -> Row:
    """Give returns of a signed address, authenticating returns of a plain one, and indirect jumps."""
    domain, found = outline.domain, outline.found
    at = found.leaves
    signed = domain.rules.ra_signed[domain.row[at]]
    keyed = effects(domain.words[at]).pauth_key != PauthKey.NONE
    back = found.flow[at] == Flow.RETURN
    return np.concatenate([at[back & (signed != keyed)], at[~back]])


def _analyse(graph: Graph, outline: Outline, trusted: Mask) -> NDArray[np.uint8]:
    """Say what the places may hold before each instruction: (m, 3) uint8; zeros where nothing leads.

    Instructions that control reaches only from the one before, which leaves x30 alone, share its state.

    Args:
        graph: the functions.
        outline: of the image.
        trusted: (m,) bool, the row there is proved, so that it says where the return address is.
    """
    called, blind = graph.place(outline.entries.called), graph.place(outline.entries.blind)
    called, blind = called[called >= 0], blind[blind >= 0]
    calm = (graph.effects.lr == LrEffect.KEEP) & (graph.effects.lr_at < 0)
    plain = (graph.target == graph.source + 1) & (graph.act == graph.source) & ~graph.lost & calm[graph.act]
    shares = np.zeros(len(graph), dtype=np.bool_)
    shares[graph.target[plain]] = True
    shares &= np.bincount(graph.target, minlength=len(graph)) == 1
    shares[called] = shares[blind] = False
    head = np.cumsum(~shares) - 1
    kept = ~shares[graph.target]
    source, target, lost = head[graph.source[kept]], head[graph.target[kept]], graph.lost[kept]
    does = graph.effects.take(graph.act[kept])
    origin = graph.source[kept]
    missed = _misses_slot(graph.domain.rules, graph.row[origin], does) & trusted[origin]
    held = np.zeros((int(np.count_nonzero(~shares)), 3), dtype=np.uint8)
    held[head[called], _LR] = _PLAIN
    held[head[blind]] = _ANY
    first = np.searchsorted(source, np.arange(held.shape[0] + 1))
    pending = np.unique(head[np.concatenate([called, blind])])
    for _ in range(_MAX_ROUNDS):  # each round adds a bit somewhere
        if not pending.size:
            found: NDArray[np.uint8] = held[head]
            return found
        count = first[pending + 1] - first[pending]
        pick = np.repeat(first[pending] - (np.cumsum(count) - count), count) + np.arange(int(count.sum()))
        after = _after(held[source[pick]], does.take(pick), missed[pick])
        after[lost[pick]] = _ANY
        old = held[target[pick]]
        np.bitwise_or.at(held, target[pick], after)
        pending = np.unique(target[pick][np.any(held[target[pick]] != old, axis=1)])
    return np.full((len(graph), 3), _ANY, dtype=np.uint8)


def _after(held: NDArray[np.uint8], does: Effects, missed: Mask) -> NDArray[np.uint8]:
    """Say what the places may hold behind instructions: (k, 3) uint8.

    Args:
        held: (k, 3) uint8, before.
        does: k instructions.
        missed: (k,) bool, x30 is stored elsewhere than in the return address's word.
    """
    after = held.copy()
    lr, how = held[:, _LR], does.lr
    plain, signed, other = (lr & np.uint8(bit) for bit in (_PLAIN, _SIGNED, _OTHER))
    some = np.where(lr != 0, np.uint8(_OTHER), np.uint8(0))
    wrong_sign = np.where(signed | other, np.uint8(_OTHER), np.uint8(0))
    wrong_auth = np.where(plain | other, np.uint8(_OTHER), np.uint8(0))
    stripped = np.where(plain | signed, np.uint8(_PLAIN), np.uint8(0)) | other
    popped = does.lr_reg == _SHADOW_SP
    from_frame = np.where(does.lr_reg == NO_REG, some, held[:, _SLOT])
    loaded = np.where(popped, held[:, _SHADOW], from_frame)
    new = np.select(
        [
            how == LrEffect.KEEP,
            np.isin(how, _SIGN),
            np.isin(how, _AUTH),
            how == LrEffect.STRIP,
            how == LrEffect.LOAD,
        ],
        [lr, (plain << np.uint8(1)) | wrong_sign, (signed >> np.uint8(1)) | wrong_auth, stripped, loaded],
        default=some,
    )
    after[:, _LR] = new
    stored = (does.lr_at >= 0) & ~missed
    pushed = stored & (does.store == Store.ELSEWHERE) & (does.store_base == _SHADOW_SP)
    after[:, _SLOT] = np.where(stored & ~pushed, held[:, _SLOT] | lr, held[:, _SLOT])
    after[:, _SHADOW] = np.where(pushed, lr, held[:, _SHADOW])
    return after
