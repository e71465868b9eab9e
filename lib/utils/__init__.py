"""Small services, one topic a module; import the module you need, nothing is re-exported here."""
