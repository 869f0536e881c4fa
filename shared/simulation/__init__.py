"""A fleet on virtual time: engines, links and requests; who decides is passed in. No hardware."""
