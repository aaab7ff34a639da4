"""The page that shows the four frameworks side by side; `site` builds it from `content`."""
