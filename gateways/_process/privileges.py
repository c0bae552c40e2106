"""Giving up root: the process becomes a user without rights once what needs them (sockets, log files) is open."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pwd import struct_passwd

__all__ = ["drop", "group_number", "user_entry"]


def drop(user: "str | int | None", group: "str | int | None" = None) -> None:
    """Become ``user`` and ``group`` for good: supplementary groups first, then the group, then the user.

    Names or numbers. Without ``group`` it is the user's own; without ``user`` only the groups change. HOME, USER and
    LOGNAME become those of the user. A process that is that user already is left alone.

    Errors: ValueError for a user or group that there is not (or a number without a group), PermissionError when this
    process may not become them or the change did not last.
    """
    if user is None and group is None:
        return
    entry = None if user is None else user_entry(user)
    uid = os.geteuid() if user is None else int(user) if entry is None else entry.pw_uid
    if group is not None:
        gid = group_number(group)
    elif entry is not None:
        gid = entry.pw_gid
    else:
        raise ValueError(f"the user {user} has no entry, and so no group of its own: name the group, too")
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid):
        try:
            # In this order: without root the others would be refused.
            os.setgroups([gid] if entry is None else os.getgrouplist(entry.pw_name, gid))
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        except PermissionError as error:
            raise PermissionError(error.errno, f"cannot become user {uid}, group {gid}: only root can") from None
        if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid) or (uid != 0 and _can_be_root()):
            raise PermissionError(f"did not become user {uid}, group {gid}")
    if entry is not None:
        os.environ.update(HOME=entry.pw_dir, USER=entry.pw_name, LOGNAME=entry.pw_name)


def user_entry(user: "str | int") -> "struct_passwd | None":
    """The entry of a user, by name or number; None for a number without one. Raises ValueError for no such name."""
    import pwd

    try:
        return pwd.getpwuid(int(user)) if _is_number(user) else pwd.getpwnam(str(user))
    except KeyError:
        if _is_number(user):
            return None
        raise ValueError(f"there is no user {user!r}") from None


def group_number(group: "str | int") -> int:
    """The number of a group. Raises ValueError when there is none of that name."""
    import grp

    if _is_number(group):
        return int(group)
    try:
        return grp.getgrnam(str(group)).gr_gid
    except KeyError:
        raise ValueError(f"there is no group {group!r}") from None


def _is_number(name: "str | int") -> bool:
    return isinstance(name, int) or (name.isascii() and name.isdigit())


def _can_be_root() -> bool:
    try:
        os.setuid(0)
    except OSError:
        return False
    return True
