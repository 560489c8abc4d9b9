"""How every command begins and ends: flags, output files, signals, standard streams, exit codes."""
