"""A testbed: cluster nodes that are namespaces of this machine, on a network of their own.

Needs nothing but Python's standard library, so that it runs before anything is installed.

  - layout: names, addresses and paths; values only
  - namespaces: the system calls
  - host: what this machine can do and what it lacks
  - holder: the process that keeps everything of a testbed, and the switch's name server
  - node: the first process of a node
  - manager: makes, changes and removes testbeds
  - main: the command line
"""
