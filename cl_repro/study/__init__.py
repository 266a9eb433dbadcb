"""From a command line to rows: composing, checking, planning, computing, telling how far it is."""
