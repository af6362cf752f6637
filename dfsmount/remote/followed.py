"""Which policy each file follows, as metad has told this client.

`GrantPool` asks, for new chunks must go where the policy of their file wants them; the writers ask
how large chunks may be.  It is learnt with new files and with grants, and forgotten as a whole when
metad says that something changed: most clusters have one policy, and those that have more change
them rarely.  What is stale for a moment costs a copy in the wrong place, which metad moves.  Pure.
"""

from __future__ import annotations

from collections import OrderedDict

DEFAULT = 0  # the key of what applies where no directory says anything
FILES_MAX = 10_000


class FollowedPolicies:
    """Inode -> the key of its policy, and what clients must know of each policy.

    `edition` grows when everything is forgotten; what was asked before that is not believed.
    """

    def __init__(self) -> None:
        self.edition = 0
        self._uniform = False
        self._keys: OrderedDict[int, int] = OrderedDict()
        self._chunk_sizes: dict[int, int] = {}  # of policies whose grants were seen; 0: the usual

    def of(self, inode: int) -> int | None:
        """The key of what a file follows; None when it is not known."""
        return DEFAULT if self._uniform else self._keys.get(inode)

    def learn(self, inode: int, key: int, edition: int) -> None:
        """metad said so, when it was asked at this edition."""
        if edition == self.edition:
            self._keys[inode] = key
            self._keys.move_to_end(inode)
            if len(self._keys) > FILES_MAX:
                self._keys.popitem(last=False)

    def learn_uniform(self, edition: int) -> None:
        """No directory has a policy of its own."""
        if edition == self.edition:
            self._uniform = True

    def learn_chunk_size(self, key: int, size_bytes: int) -> None:
        """What a key stands for never changes, but for the default, which restarts may."""
        self._chunk_sizes[key] = size_bytes

    def is_known(self, key: int) -> bool:
        """Has anything been learnt of this policy?"""
        return key in self._chunk_sizes

    def chunk_size_bytes(self, inode: int) -> int:
        """The size of a file's new chunks; 0: the usual one, or not known yet."""
        key = self.of(inode)
        return self._chunk_sizes.get(key, 0) if key is not None else 0

    def forget(self) -> None:
        """Policies of directories changed, or may have: which file follows which is asked anew."""
        self.edition += 1
        self._uniform = False
        self._keys.clear()
