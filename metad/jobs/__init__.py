"""Long work in small steps that outlives a restart, and the plans that such work follows."""
