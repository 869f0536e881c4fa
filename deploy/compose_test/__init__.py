"""`make compose-test`: builds the images, runs deploy/compose with them, tries what it promises."""
