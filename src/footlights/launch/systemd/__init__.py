"""Runs applications as transient units of the node's systemd, over D-Bus.

What is in here
    ``recipe`` checks a version's ``systemd``. ``unit`` makes of a plan the unit's properties, its whole boundary;
    ``devices`` says which device nodes it gets. ``manager`` talks to systemd, ``unit_journal`` reads what applications
    write, ``exits`` how they ended, ``support`` says what a node lacks. ``launcher`` puts them together.

How it works
    * A launch is one service and the file system of its /tmp (`unit.names`), both made by one call. systemd starts,
      watches and ends them, and goes on when the agent dies; the next agent asks it about the unit by its name.
    * The unit's last command, run by systemd when every process is gone, writes how the application ended into a file
      of the launch's directory. The file has its size before the start, so a full disk loses no status.
    * ``EXITED`` is said when systemd has no such unit that lives and the unit's control group is empty.
    * Output goes to a namespace of the journal, which bounds it; it stays there as long as its journald keeps it.

What it needs
    systemd 250 or later with seccomp and the BPF framework, on control groups v2 with the controllers cpu, memory and
    pids. ``IPAddressDeny`` and ``SocketBindDeny`` exist with control groups v2 only: where they, or a controller, are
    missing, the node does not offer the launcher and says what is missing (`support`).
"""
