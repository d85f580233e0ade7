"""How figures look to people, on a page and in a file: texts, formats, pictures, cells."""
