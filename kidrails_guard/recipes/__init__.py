"""Training recipes: one typed value, rendered for the tools that train it, and checked before.

* `schema`: the `Recipe`
* `library`: the recipes that ship, found by name, with what they inherit filled in
* `axolotl`, `unsloth`: renderers, `Recipe -> text`
* `masking`: which tokens are learnt, where axolotl does not say it
* `patterns`: which parameters axolotl's ``unfrozen_parameters`` unfreeze
* `environment`: the Python that holds axolotl, and what it knows (`probe` runs there)
* `preflight`: everything that can be wrong before the first step
* `judge_format`: how the guard model is asked, and what it answers
* `launch`, `proof`, `card`: training, the proof of what changed, the record of the run
"""
