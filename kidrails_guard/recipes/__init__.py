"""Training recipes: one typed value, rendered for the tools that train it, and checked before.

* `schema`: the `Recipe`
* `library`: the recipes that ship, found by name, with what they inherit filled in
* `axolotl`, `unsloth`: renderers, `Recipe -> text`
* `patterns`: which parameters axolotl's ``unfrozen_parameters`` unfreeze
* `environment`: the Python that holds axolotl, and what it knows (`probe` runs there)
* `preflight`: everything that can be wrong before the first step
* `launch`, `proof`, `card`: training, the proof of what changed, the record of the run
"""
