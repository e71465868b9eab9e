"""A cluster of several nodes on one machine: each node a root directory, an address, its daemons.

- L{layout}: names, addresses and directories of a virtual cluster, as values;
- L{manager}: makes it, stops it, kills and starts nodes;
- L{demo}: the main job on it, with what to try next;
- L{main}: the command C{vcluster}.
"""
