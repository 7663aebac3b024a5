"""The second signal, whole: where an ECG comes from, the state of its lead, its cleaning and its R peaks."""
