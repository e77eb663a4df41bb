"""The page on which a person looks at the closest pairs and decides."""
