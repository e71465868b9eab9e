"""The watcher, which cron or a timer runs every few minutes on every node.

L{main} is one run: on every node L{node} keeps the daemons alive and, where that is wanted, ends
what runs on a node that was given up; on the master L{master} brings back instances that should
run, and disks that a rebooted node has lost. L{decide} has the rules, as pure functions, L{state}
what is kept from run to run. L{cleaner} is the daily cleaning.
"""
