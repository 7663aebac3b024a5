"""The network that says where S1, systole, S2 and diastole lie: its corpus and its training."""
