"""A story onto a page: terminal, HTML, figure, JSON. Renderers read stories and sections, never models."""
