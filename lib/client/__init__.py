"""The gnt-* commands: what an administrator types, as jobs and queries to the master daemon.

L{parser} turns a command line into a command, its options and its arguments, by the table of its
program; L{options} declares the options that several commands share; L{values} are the small
languages inside of options; L{jobs} submits and follows jobs; L{output} prints tables; L{failures}
says what an error means to a person and for the exit code; L{main} holds it together.

A listing has to be there at once, so modules of this package import at their top only what every
command needs; what one command needs is imported where it is used.
"""
