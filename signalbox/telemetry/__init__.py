"""What the system says about itself to operators: metrics (`metrics.py`) and logs (`logs.py`)."""
