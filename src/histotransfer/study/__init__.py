"""How a run is made: plans, their execution, and the runner that writes records."""
