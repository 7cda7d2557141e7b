"""SAM-CP: patches merged into semantic regions and instances by their affinity to queries."""
