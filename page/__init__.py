"""The page: layout, events and words around `feallm`; the only package that imports gradio."""
