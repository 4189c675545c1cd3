"""Pictures: sounds, networks, and results over layers; each draws what it is handed."""
