"""A cluster manager for virtual machines with the interfaces of Ganeti 2.1."""
