# SPDX-License-Identifier: Apache-2.0
"""One rate limit: what the user allows and what is believed of the server's.

Two debt buckets stand in a row. The *user's* is hard: nothing that a server says raises it. The
*server's* is a belief: it starts with one second's worth, and every answer that carries
``x-ratelimit-*`` corrects it. A debt bucket lets a request pass that is larger than the bucket:
it passes when the bucket is full and leaves it below zero.

Nothing here waits or knows of tasks; `pizza._engine.limiter` does.
"""

from __future__ import annotations

import math

_SLACK_S = 0.1
"""Kept back, in seconds of the rate: requests overtake one another by about that on their way."""
_ROUNDING_S = 1.2
"""Servers round the times they announce to whole seconds."""
_CONFIRM_S = 1.5
"""Two announcements this far apart tell a fixed window from a server that always says "60 s"."""
_HALVE_EVERY_S = 5.0
_SLOWEST = 1 / 60
_MOST = 8.0
"""Times that a server may charge more tokens than were estimated."""
_DISTRUST_S = 300.0


class Bucket:
    """Fills at ``rate`` per second up to ``capacity``; may go below zero.

    Attributes:
        rate: Per second.
        capacity: What it holds at most.
        level: What it holds, at the time ``at``.
    """

    __slots__ = ("at", "capacity", "level", "rate")

    def __init__(self, rate: float, capacity: float, now: float, level: float | None = None):
        self.rate = rate
        self.capacity = capacity
        self.level = capacity if level is None else level
        self.at = now

    def refill(self, now: float) -> None:
        """Bring the level up to date."""
        if now > self.at:
            if self.level < self.capacity:
                self.level = min(self.capacity, self.level + (now - self.at) * self.rate)
            self.at = now

    def wait(self, cost: float, slack: float, now: float) -> float:
        """Seconds until ``cost`` may be taken while ``slack`` stays; 0 = now."""
        self.refill(now)
        needed = min(cost + slack, self.capacity) - self.level
        # A timer that fires a rounding error early must not start another round.
        return 0.0 if needed <= 1e-9 * self.capacity else needed / self.rate


class Quota:
    """The limit on requests, or the one on tokens.

    Args:
        per_minute: The user's limit, or ``None`` when it is to be learned.
        burst_s: The user's cap on bursts, in seconds of the rate, or ``None``.
        now: The clock.
        estimated: Costs are estimates (tokens), and the server may count otherwise.
        lag_s: Seconds by which what is taken may be sent later than now, one thing more and
            another less: the burst of the user's limit is that much smaller, so that what is
            sent keeps to it.
    """

    def __init__(
        self,
        per_minute: float | None,
        burst_s: float | None,
        now: float,
        *,
        estimated: bool = False,
        lag_s: float = 0.0,
    ) -> None:
        self.burst_s = burst_s
        self.sent = 0.0
        """All that was ever taken: differences tell what was sent after an answer's request."""
        self.user: Bucket | None = None
        self.server: Bucket | None = None
        if per_minute is not None:
            rate = per_minute / 60
            self.user = Bucket(rate, max(1.0, rate * ((burst_s or 60.0) - lag_s)), now)
            self.server = Bucket(rate, max(1.0, rate * (burst_s or 1.0)), now)
        self.told = per_minute is not None
        self.factor = 1.0
        """What the server charges per unit that is reserved here."""
        self._estimated = estimated
        self._compared: tuple[float, float, float] | None = None
        self.announced = False
        self.window = False
        """Whether the server counts in fixed windows, and so refills nothing before they end."""
        self.window_end = math.inf
        self._suspected: tuple[float, float] | None = None
        self._distrusted_until = -math.inf
        self._halved_at = -math.inf
        self._ceiling = math.inf

    # --- taking -------------------------------------------------------------------------------

    def wait(self, cost: float, now: float) -> float:
        """Seconds until ``cost`` may be taken; 0 = now."""
        longest = 0.0
        if self.user is not None:
            longest = self.user.wait(cost, 0.0, now)
        if (server := self.server) is not None:
            cost *= self.factor
            until = self._fixed_until(server, now)
            if until > now:
                # Nothing refills before then.
                server.at = now
                enough = server.level >= min(cost, server.capacity)
                return longest if enough else max(longest, until - now)
            longest = max(longest, server.wait(cost, _slack(server), now))
        return longest

    def take(self, cost: float) -> None:
        """Take; `wait` said 0 at this moment."""
        self.sent += cost
        if self.user is not None:
            self.user.level -= cost
        if self.server is not None:
            self.server.level -= cost * self.factor

    def give_back(self, cost: float, *, sent: bool, moved: bool = False) -> None:
        """Return what was taken and not used.

        Args:
            cost: How much.
            sent: The request went out, and was charged for less than was taken. A server that
                announces its level has told already what it charged.
            moved: Time has passed since it was taken, and what would be sent for it now would be
                sent in another window: the user's limit has room for that only as it refills.
        """
        if self.user is not None and not moved:
            self.user.level = min(self.user.capacity, self.user.level + cost)
        if self.server is not None and not (sent and self.announced):
            self.server.level = min(self.server.capacity, self.server.level + cost)

    def charge(self, cost: float) -> None:
        """The request cost more than was taken."""
        if self.user is not None:
            self.user.level -= cost
        if self.server is not None and not self.announced:
            self.server.level -= cost

    def room(self) -> float:
        """What the belief would let pass at once; infinity when there is none."""
        return math.inf if self.server is None else self.server.level

    # --- learning -----------------------------------------------------------------------------

    def observe(
        self,
        *,
        limit: float | None,
        remaining: float | None,
        reset_s: float | None,
        cost: float,
        mark: float,
        on_the_way: float,
        sent_at: float,
        now: float,
        undisturbed: bool = True,
    ) -> None:
        """Learn from one answer.

        Args:
            limit: The announced limit per minute.
            remaining: What was left when the server charged this request.
            reset_s: Seconds until the quota is full again.
            cost: What this request was charged.
            mark: `sent` right after this request was taken.
            on_the_way: What was sent just before it and is not answered: the server may have
                charged this request first.
            sent_at: When it was sent.
            now: The clock.
            undisturbed: Nothing was refused since it was sent, so all that was sent was charged.
                Else what it says is older than the refusal, which said that nothing is left.
        """
        trusted = now >= self._distrusted_until
        if limit is not None and limit > 0 and trusted:
            self._learn_rate(limit / 60, now)
        server = self.server
        if server is None or remaining is None:
            return
        self.announced = True
        if reset_s is not None and not self._place_in_window(limit, remaining, reset_s, now):
            return
        # What the server said is older than what was sent since, and it has refilled since.
        if self._estimated and trusted and undisturbed:
            self._compare(server, remaining, mark, sent_at)
        level = remaining - (self.sent - mark + on_the_way) * self.factor
        if self._fixed_until(server, now) <= now:
            # The slack is kept back for those that overtake, too.
            level += min(_slack(server), on_the_way * self.factor)
            level += server.rate * (now - sent_at)
        server.refill(now)
        if trusted and (undisturbed or self.window):
            seen = min(remaining + cost * self.factor, self._widest(server, limit))
            server.capacity = max(server.capacity, seen)
            server.level = min(level, server.capacity)
        else:
            server.level = min(level, server.level)

    def _compare(self, server: Bucket, remaining: float, mark: float, sent_at: float) -> None:
        """Find out what the server charges per unit, from what it had left at two moments.

        Servers estimate a request's tokens in their own way (characters, padding, images), and a
        reservation that is a quarter too small is a 429 for every fourth request.
        """
        if self._compared is None or mark <= self._compared[0]:
            self._compared = self._compared or (mark, remaining, sent_at)
            return
        mark_0, remaining_0, sent_0 = self._compared
        reserved = mark - mark_0
        if reserved * self.factor < max(server.rate, 0.2 * server.capacity):
            return
        self._compared = (mark, remaining, sent_at)
        if max(remaining, remaining_0) > 0.9 * server.capacity:
            # A bucket that was full on the way has lost what flowed in.
            return
        refilled = 0.0 if self.window else server.rate * (sent_at - sent_0)
        ratio = (remaining_0 - remaining + refilled) / reserved
        # Too small is a 429, too large is corrected by the next answer: never below 1.
        ratio = min(max(ratio, 1.0), _MOST)
        if abs(ratio - self.factor) > 0.03:
            self.factor += 0.5 * (ratio - self.factor)

    def refused(self, cost: float, remaining: float | None, retry_after_s: float | None) -> None:
        """A request was refused for this quota: its charge is more than what was left.

        Args:
            cost: What was reserved for it.
            remaining: What the server had left.
            retry_after_s: When it would have had enough; whole seconds are too coarse to use.
        """
        if not self._estimated or self.server is None or remaining is None or cost <= 0:
            return
        charge = remaining
        if retry_after_s is not None and retry_after_s % 1:
            charge += self.server.rate * retry_after_s
        self.factor = max(self.factor, min(charge / cost, _MOST))

    def _learn_rate(self, rate: float, now: float) -> None:
        if self.server is None:
            self.server = Bucket(rate, max(1.0, rate * (self.burst_s or 1.0)), now)
        self.server.refill(now)
        self.server.rate = rate

    def _widest(self, server: Bucket, limit: float | None) -> float:
        """The largest burst that is believed, whatever the server announces."""
        widest = limit if limit is not None else 60 * server.rate
        if self.user is not None:
            widest = min(widest, self.user.capacity)
        if self.burst_s is not None:
            widest = min(widest, self.burst_s * server.rate)
        return max(1.0, widest)

    def _place_in_window(
        self, limit: float | None, remaining: float, reset_s: float, now: float
    ) -> bool:
        """Find out whether the server counts in fixed windows; False = an answer of the last one.

        A bucket needs ``(limit - remaining) / rate`` seconds to be full. A fixed window ends when
        it ends: the announced moment is later than that at first, and stays where it is.
        """
        end = now + reset_s
        if self.window:
            if end < self.window_end - 60 + _ROUNDING_S:
                return False
            if abs(end - self.window_end) <= 2 * _ROUNDING_S:
                # An answer is read after the server wrote it, so the earliest is the truest.
                self.window_end = min(self.window_end, end)
                return True
            self.window, self._suspected = False, None
        if limit is None or limit <= 0:
            return True
        suspicious = reset_s > (limit - remaining) / (limit / 60) + 2 * _ROUNDING_S
        first, expected = self._suspected or (now, -math.inf)
        if now > expected or abs(end - expected) > _ROUNDING_S + 0.1:
            self._suspected = (now, end) if suspicious else None
        elif now - first >= _CONFIRM_S:
            self.window, self.window_end = True, min(end, expected)
        return True

    def _fixed_until(self, server: Bucket, now: float) -> float:
        """When the level changes next by itself, if it does not refill all the time; else 0."""
        if self.window:
            if now >= self.window_end:
                server.level = server.capacity
                self.window_end += 60 * (1 + math.floor((now - self.window_end) / 60))
            return self.window_end
        # Not known yet: wait and see costs two seconds, guessing wrong costs refusals.
        if self._suspected is None:
            return 0.0
        until = self._suspected[0] + _CONFIRM_S
        if now >= until > server.at:
            server.at = until
        return until

    # --- after a 429 --------------------------------------------------------------------------

    def punish(self, now: float) -> None:
        """The server refused: nothing is left, and bursts get smaller."""
        self._compared = None
        server = self.server
        if server is None:
            return
        server.refill(now)
        server.level = min(server.level, 0.0)
        if now - self._halved_at >= _HALVE_EVERY_S:
            self._halved_at = now
            server.capacity = max(_smallest(server.rate), server.capacity / 2)

    def distrust(self, now: float) -> None:
        """The server refused although it had promised room: believe no promise for a while."""
        if not self.announced:
            return
        self._distrusted_until = now + _DISTRUST_S
        self.announced = self.window = False
        self.server = None
        if self.user is not None:
            rate = self.user.rate
            self.server = Bucket(rate, _smallest(rate), now, level=0.0)

    def guess(self, rate: float, now: float) -> None:
        """Nobody said how fast: start from a rate that was seen to work."""
        rate = max(rate, 1.0)
        self.server = Bucket(rate, _smallest(rate), now, level=0.0)
        self._ceiling = math.inf

    def slow_down(self, now: float, factor: float) -> None:
        """The rate itself was too high."""
        if (server := self.server) is not None:
            server.refill(now)
            self._ceiling = server.rate
            server.rate = max(server.rate * factor, _SLOWEST)

    def speed_up(self, now: float, seconds: float) -> None:
        """No refusal for so many seconds: go faster, never faster than the user allows.

        Doubles every second far below the rate that was refused last, and feels its way near it.
        """
        server = self.server
        if server is None or (self.announced and now >= self._distrusted_until):
            return
        server.refill(now)
        growth = 2.0 if server.rate < 0.8 * self._ceiling else 1.02
        rate = server.rate * growth ** min(seconds, 1.0)
        if self.user is not None:
            rate = min(rate, self.user.rate)
        server.rate = rate
        server.capacity = max(server.capacity, _smallest(rate))


def _slack(server: Bucket) -> float:
    return min(0.1 * server.capacity, _SLACK_S * server.rate)


def _smallest(rate: float) -> float:
    """One request, and what accrues while a timer is late."""
    return 1.0 + _SLACK_S * rate
